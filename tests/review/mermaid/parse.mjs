// Reads diagrams, a JSON array, from standard input; writes what mermaid understood of each, or the
// error. Its parser of diagrams asks for a browser's document, which jsdom has.
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folder = process.argv[2];
const require = createRequire(join(folder, "package.json"));
const { JSDOM } = require("jsdom");
const { window } = new JSDOM("");
globalThis.window = window;
globalThis.document = window.document;

const mermaid = await import(
  pathToFileURL(join(folder, "node_modules/mermaid/dist/mermaid.core.mjs"))
);
let text = "";
for await (const chunk of process.stdin) text += chunk;
const found = [];
for (const diagram of JSON.parse(text)) {
  try {
    await mermaid.default.parse(diagram); // registers the kinds of diagrams, which the next does not
    const { db } = await mermaid.default.mermaidAPI.getDiagramFromText(diagram);
    found.push({
      tables: [...db.getEntities().values()].map((one) => ({
        name: one.alias || one.label,
        columns: one.attributes.map((each) => [
          each.type,
          each.name,
          (each.keys ?? []).join(", "),
          each.comment ?? "",
        ]),
      })),
      references: db.getRelationships().length,
    });
  } catch (error) {
    found.push({ error: String(error) });
  }
}
process.stdout.write(JSON.stringify(found));
