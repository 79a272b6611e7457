"use strict";
// Renders /openapi.json. Text is only ever set as text, never as markup.

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function table(heads, rows) {
  const made = element("table", "", element("tr", "", ...heads.map((head) => element("th", head))));
  for (const row of rows) made.append(element("tr", "", ...row.map((cell) => element("td", cell))));
  return made;
}

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return "list of " + typeOf(schema.items);
  return [schema.type, schema.format].filter(Boolean).join(", ");
}

function operation(path, method, op) {
  const summary = element("summary", "", element("b", method.toUpperCase()), element("code", path));
  const made = element("details", "", summary, element("p", op.description || op.summary || ""));
  made.append(element("p", "Needs: " + (op["x-permission"] || "?")));
  const parameters = op.parameters || [];
  if (parameters.length) {
    made.append(table(["parameter", "in", "type", ""],
      parameters.map((p) => [p.name, p.in, typeOf(p.schema), p.description || ""])));
  }
  const body = op.requestBody && op.requestBody.content["application/json"];
  if (body) made.append(element("p", "Body: " + typeOf(body.schema)));
  made.append(table(["status", "", "body"], Object.entries(op.responses).map(([status, answer]) => {
    const content = Object.entries(answer.content || {})[0];
    return [status, answer.description, content ? content[0] + " " + typeOf(content[1].schema) : ""];
  })));
  made.dataset.words = (method + " " + path + " " + (op.description || "")).toLowerCase();
  return made;
}

function schemas(all) {
  return Object.entries(all).map(([name, schema]) => {
    const rows = Object.entries(schema.properties || {}).map(([field, about]) =>
      [field, typeOf(about), about.default === undefined ? "" : JSON.stringify(about.default), about.description || ""]);
    const made = element("details", "", element("summary", name), element("p", schema.description || ""));
    if (rows.length) made.append(table(["field", "type", "default", ""], rows));
    made.dataset.words = name.toLowerCase();
    return made;
  });
}

async function show() {
  const api = document.getElementById("api");
  const description = await (await fetch("/openapi.json")).json();
  const operations = Object.entries(description.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, op]) => operation(path, method, op)));
  api.replaceChildren(element("h2", "Operations"), ...operations,
    element("h2", "Schemas"), ...schemas(description.components.schemas));
  document.getElementById("filter").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase();
    for (const details of api.querySelectorAll("details")) details.hidden = !details.dataset.words.includes(words);
  });
}

show().catch((error) => { document.getElementById("api").textContent = "Could not load: " + error; });
