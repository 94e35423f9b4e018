// schemas.mjs FILE…: reads rendered manifests and prints {"documents": {FILE: […]}, "errors": ["FILE: Kind/name: …"]}.
//
// kubernetes-models knows which fields are required and their formats, but lets unknown fields pass; the types of
// kubernetes-types know every field, so each document is also compiled as an object literal of its type.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const yaml = require("js-yaml");
const ts = require("typescript");
const here = dirname(fileURLToPath(import.meta.url));

const documents = {};
const all = [];
const errors = [];

for (const file of process.argv.slice(2)) {
  documents[file] = yaml.loadAll(readFileSync(file, "utf8")).filter((document) => document !== null);
  for (const document of documents[file]) {
    // kustomize breaks long values into lines, which Kubernetes takes and the format "byte" does not.
    for (const key of Object.keys((document.kind === "Secret" && document.data) || {})) {
      document.data[key] = document.data[key].replace(/\n/g, "");
    }
    all.push({ document, label: `${file}: ${document.kind}/${document.metadata?.name}` });
  }
}

for (const { document, label } of all) {
  try {
    const models = require(`kubernetes-models/${document.apiVersion}`);
    if (!(document.kind in models)) throw new Error(`no such kind in ${document.apiVersion}`);
    new models[document.kind](document).validate();
  } catch (error) {
    errors.push(`${label}: ${error.message}`);
  }
}

const virtual = join(here, "manifests.virtual.ts");
const lines = [];
const labels = [];
all.forEach(({ document, label }, i) => {
  const group = document.apiVersion.includes("/") ? document.apiVersion.replace(/\.[^/]*/, "") : `core/${document.apiVersion}`;
  lines.push(`import type * as m${i} from "kubernetes-types/${group}"; export const d${i}: m${i}.${document.kind} = ${JSON.stringify(document)};`);
  labels.push(label);
});
const options = { noEmit: true, strict: true, skipLibCheck: true, types: [], target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.CommonJS, moduleResolution: ts.ModuleResolutionKind.Node10 };
const host = ts.createCompilerHost(options);
const readSource = host.getSourceFile.bind(host);
host.getSourceFile = (name, ...rest) =>
  name === virtual ? ts.createSourceFile(name, lines.join("\n"), options.target) : readSource(name, ...rest);
const exists = host.fileExists.bind(host);
host.fileExists = (name) => name === virtual || exists(name);
for (const found of ts.getPreEmitDiagnostics(ts.createProgram([virtual], options, host))) {
  const text = ts.flattenDiagnosticMessageText(found.messageText, " ");
  const line = found.file?.fileName === virtual ? found.file.getLineAndCharacterOfPosition(found.start).line : -1;
  errors.push(`${labels[line] ?? "types"}: ${text}`);
}
console.log(JSON.stringify({ documents, errors }));
