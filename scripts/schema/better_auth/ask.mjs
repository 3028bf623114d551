// Asks Better Auth what a configuration needs of its database: node ask.mjs CONFIG DESCRIPTOR.
// The socket with that descriptor carries one JSON document a line. Each {sql, parameters} is a query
// of Better Auth's, which process.py executes and answers; the last one is {result} or {failure}.
// No package is imported but those of the configuration, which may print and leave open what it likes.

import { existsSync, readFileSync, realpathSync } from "node:fs";
import { createRequire } from "node:module";
import { Socket } from "node:net";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [config, descriptor] = process.argv.slice(2);
const channel = new Socket({ fd: Number(descriptor) });
const waiting = [];
channel.on("close", () => process.exit(1)); // the command has ended: what is left open ends with it

// What the configuration does beside being read, such as a connection that fails, is not asked for.
process.on("unhandledRejection", () => {});
process.on("uncaughtException", () => {});

createInterface({ input: channel }).on("line", (line) => {
  const { resolve, reject } = waiting.shift();
  const { error, rows } = JSON.parse(line);
  if (error === undefined) resolve({ command: "SELECT", rowCount: rows.length, rows });
  else reject(new Error(error));
});

/** A pool as Better Auth takes it, without a driver, an address or a password. */
const pool = {
  connect: async () => ({ query, release() {} }),
  end: async () => {},
};

function query(sql, parameters) {
  return new Promise((resolve, reject) => {
    waiting.push({ resolve, reject });
    channel.write(`${JSON.stringify({ sql, parameters: parameters ?? [] })}\n`);
  });
}

function end(document) {
  channel.end(`${JSON.stringify(document)}\n`, () => process.exit(0));
}

/** Runs a step; if it throws, the process ends, and names the step. */
async function step(stage, work) {
  try {
    return await work();
  } catch (error) {
    end({ failure: { stage, code: error?.code ?? null, message: String(error?.message ?? error) } });
    return new Promise(() => {});
  }
}

/** Reads the version of the package that a file is in: packages do not export their package.json. */
function versionOf(file) {
  for (let folder = dirname(file); folder !== dirname(folder); folder = dirname(folder)) {
    const manifest = join(folder, "package.json");
    const { name, version } = existsSync(manifest) ? JSON.parse(readFileSync(manifest)) : {};
    if (name === "better-auth") return version;
  }
  return "of an unknown version";
}

const isPlain = (value) =>
  value !== null &&
  typeof value === "object" &&
  [Object.prototype, null].includes(Object.getPrototypeOf(value));

/** Returns the options in a module: those of an instance of Better Auth, or options as they are. */
async function optionsOf(module) {
  for (const exported of [await module.auth, await module.default]) {
    if (typeof exported?.handler === "function" && isPlain(exported.options)) return exported.options;
    if (isPlain(exported) && exported.handler === undefined) return exported;
  }
  const error = new Error("it exports neither `auth` nor a default that is Better Auth or its options");
  error.code = "NO_OPTIONS";
  throw error;
}

/** Names how the option makes ids: a word, the kind of a value, or null if it is not there. */
function idsOf({ advanced }) {
  const option = advanced?.database?.generateId ?? advanced?.generateId;
  if (option === undefined || option === null) return null;
  return typeof option === "string" || typeof option === "boolean" ? String(option) : typeof option;
}

/** Says whether the configuration's own Kysely sends other names than it is told. */
function renames({ database }) {
  try {
    const { sql } = database.db.selectFrom("session").select("userId").compile();
    return !(sql.includes('"session"') && sql.includes('"userId"'));
  } catch {
    return false; // it is no Kysely
  }
}

function defaultOf({ type, defaultValue }) {
  if (defaultValue === undefined || defaultValue === null) return null;
  if (typeof defaultValue === "function") return type === "date" ? { now: true } : null;
  return ["string", "number", "boolean"].includes(typeof defaultValue) ? { value: defaultValue } : null;
}

function fieldOf(tables, plugins, table, key, field) {
  const { references } = field;
  const target = references && tables[references.model];
  return {
    name: field.fieldName || key,
    key,
    type: Array.isArray(field.type) ? "string" : field.type,
    chosen: Array.isArray(field.type),
    required: field.required !== false,
    unique: field.unique === true,
    index: field.index === true,
    big: field.bigint === true,
    returned: field.returned !== false,
    input: field.input !== false,
    default: defaultOf(field),
    references: references && {
      table: target?.modelName ?? references.model,
      column: target?.fields[references.field]?.fieldName ?? references.field,
      on_delete: references.onDelete ?? "cascade",
    },
    plugin: plugins.find(({ schema }) => schema?.[table]?.fields?.[key])?.id ?? null,
  };
}

const path = realpathSync(config);
const require = createRequire(path);
const [{ getMigrations }, { getAuthTables, getSchema }, version] = await step("package", async () => {
  const files = ["better-auth/db/migration", "better-auth/db"].map((name) => require.resolve(name));
  const modules = await Promise.all(files.map((file) => import(pathToFileURL(file))));
  return [...modules, versionOf(files[0])];
});
const options = await step("config", async () => optionsOf(await import(pathToFileURL(path))));
const result = await step("schema", () => {
  const plugins = options.plugins ?? [];
  const tables = getAuthTables(options);
  const schema = getSchema(options);
  return {
    version,
    generate_id: idsOf(options),
    renames: renames(options),
    schema_name: options.database?.schemaName ?? null,
    adapter: typeof options.database === "function",
    tables: Object.entries(tables).map(([key, { modelName, fields, disableMigrations }]) => ({
      name: modelName,
      key,
      managed: !disableMigrations,
      indexes: schema[modelName]?.indexes ?? [],
      plugin: plugins.find(({ schema }) => schema?.[key])?.id ?? null,
      fields: Object.entries(fields).map(([name, field]) =>
        fieldOf(tables, plugins, key, name, field),
      ),
    })),
  };
});
const replaced = { ...options, database: pool, logger: { disabled: true } };
try {
  const plan = await getMigrations(replaced, { throwOnUnsafe: false });
  const columns = ({ table, fields }) => Object.keys(fields).map((column) => [table, column]);
  result.plan = {
    tables: plan.toBeCreated.map(({ table }) => table),
    columns: plan.toBeAdded.flatMap(columns),
    indexes: (plan.toBeAddedIndexes ?? []).map(({ table, name }) => [table, name]),
    problems: plan.schemaProblems ?? [],
  };
} catch (error) {
  result.plan = { stopped: String(error?.message ?? error) };
}
end({ result });
