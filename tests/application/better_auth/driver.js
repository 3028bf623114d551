// Better Auth as an application runs it, for the tests: one JSON command a line on
// standard input, one JSON answer a line on standard output. Nothing is simulated but the mail.

import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { betterAuth } from "better-auth";
import { getAuthTables } from "better-auth/db";
import { getMigrations } from "better-auth/db/migration";
import { anonymous, bearer, jwt } from "better-auth/plugins";
import { toNodeHandler } from "better-auth/node";
import { Kysely, PostgresDialect } from "kysely";
import pg from "pg";

const TIMEOUT = 30_000; // milliseconds: a command that hangs is a failure, not a wait

let auth, pool, listening;
const seen = { printed: [], mails: [], statements: [] };

// Whatever Better Auth, or a library below it, prints or warns of is kept for the tests.
for (const level of ["debug", "info", "log", "warn", "error"])
  console[level] = (...parts) => seen.printed.push(parts.map(String).join(" "));
process.on("warning", (warning) => seen.printed.push(String(warning)));

const mail = (kind) => async ({ user, token }) => {
  seen.mails.push({ kind, to: user.email, token });
};

const PLUGINS = {
  anonymous,
  "anonymous kept": () => anonymous({ disableDeleteAnonymousUser: true }),
  bearer,
  jwt,
};

function options(plugins) {
  const db = new Kysely({
    dialect: new PostgresDialect({ pool }),
    log: ({ query }) => seen.statements.push({ sql: query.sql, parameters: query.parameters }),
  });
  return {
    baseURL: "http://localhost:3000",
    secret: "only for tests, and 32 characters or more",
    telemetry: { enabled: false },
    database: { db, type: "postgres", transaction: true },
    advanced: { database: { generateId: "uuid" } },
    emailAndPassword: { enabled: true, sendResetPassword: mail("reset") },
    emailVerification: { sendVerificationEmail: mail("verify"), sendOnSignUp: true },
    plugins,
    user: {
      changeEmail: { enabled: true, sendChangeEmailConfirmation: mail("confirm") },
      deleteUser: { enabled: true },
    },
  };
}

async function send({ method, path, headers, body }) {
  const request = new Request(`${auth.options.baseURL}/api/auth${path}`, {
    method,
    headers: { origin: auth.options.baseURL, "content-type": "application/json", ...headers },
    body: body && JSON.stringify(body),
  });
  const response = await auth.handler(request);
  const text = await response.text();
  return {
    status: response.status,
    cookies: response.headers.getSetCookie(),
    body: text ? JSON.parse(text) : null,
  };
}

const commands = {
  /**
   * Starts Better Auth on a database; what an earlier one kept in memory is gone. Its plugins are
   * named, or those of a configuration.
   */
  async open({ connection, plugins, config }) {
    await commands.close();
    pool = new pg.Pool(connection);
    pool.on("error", () => {}); // a test dropped the database: without a listener, Node would end
    const named = plugins.map((name) => PLUGINS[name]());
    auth = betterAuth(options(config ? (await import(config)).auth.options.plugins : named));
  },
  /** Serves Better Auth over HTTP, on a free port of this machine. */
  async listen() {
    listening = createServer(toNodeHandler(auth));
    await new Promise((ready) => listening.listen(0, "127.0.0.1", ready));
    return listening.address().port;
  },
  async close() {
    listening?.closeAllConnections();
    listening?.close();
    listening = undefined;
    await pool?.end();
    pool = undefined;
    commands.take();
  },
  /** Sends HTTP requests, all at once. */
  send: ({ requests }) => Promise.all(requests.map(send)),
  /** Calls what plugins and sign-in by other providers are built on, all at once. */
  async call({ name, calls }) {
    const { internalAdapter } = await auth.$context;
    const called = calls.map((parameters) => internalAdapter[name](...parameters));
    return (await Promise.allSettled(called)).map(({ value, reason }) => ({
      value,
      error: reason && { code: reason.code, message: reason.message },
    }));
  },
  async migrations() {
    const { runMigrations, compileMigrations, ...plan } = await getMigrations(auth.options);
    return plan;
  },
  /** Lists the text columns that Better Auth never returns to a client: table and column. */
  kept: () =>
    Object.values(getAuthTables(auth.options)).flatMap(({ modelName, fields }) =>
      Object.entries(fields)
        .filter(([, field]) => field.returned === false && field.type === "string")
        .map(([name, field]) => [modelName, field.fieldName ?? name]),
    ),
  /** Hands over what was printed, mailed and asked of the database since the last time. */
  take: () => Object.fromEntries(Object.entries(seen).map(([kind, all]) => [kind, all.splice(0)])),
};

const isDate = /^\d{4}-\d\d-\d\dT[\d:.]+Z$/;
const revive = (_key, value) =>
  typeof value === "string" && isDate.test(value) ? new Date(value) : value;

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...parameters } = JSON.parse(line, revive);
  let timer;
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(reject, TIMEOUT, new Error(`no answer within ${TIMEOUT} ms`));
  });
  const answer = await Promise.race([commands[command](parameters), late]).then(
    (value) => ({ value }),
    (error) => ({ error: `${error.name}: ${error.message}` }),
  );
  clearTimeout(timer);
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await commands.close();
