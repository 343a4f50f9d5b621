"use strict";
// Shows openapi.json, and sends requests to this server. All that comes from outside is set as text.

function made(tag, text, ...children) {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

// Returns a schema with its references to components resolved, each once.
function resolved(schema, api, within = []) {
  if (Array.isArray(schema)) return schema.map((part) => resolved(part, api, within));
  if (schema === null || typeof schema !== "object") return schema;
  const reference = schema.$ref;
  if (reference) {
    if (within.includes(reference)) return reference.split("/").pop();
    const target = reference.slice(2).split("/").reduce((part, name) => part[name], api);
    return resolved(target, api, [...within, reference]);
  }
  return Object.fromEntries(Object.entries(schema).map(([name, part]) => [name, resolved(part, api, within)]));
}

function shape(content, api) {
  return Object.entries(content || {}).flatMap(([media, { schema }]) =>
    [made("p", "", made("code", media)), made("pre", JSON.stringify(resolved(schema || {}, api), null, 1))]);
}

function tryForm(method, path, operation, inputs) {
  const form = made("form"), answer = made("pre"), media = Object.keys(operation.requestBody?.content || {});
  const text = made("textarea"), file = made("input");
  file.type = "file";
  text.setAttribute("aria-label", "Body (JSON)");
  file.setAttribute("aria-label", "Body (file)");
  if (media.includes("application/json")) form.append(made("p", "Body (JSON)"), text);
  if (media.some((one) => one !== "application/json")) form.append(made("p", "", file));
  form.append(made("p", "", made("button", "Send")), answer);
  answer.hidden = true;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const query = new URLSearchParams(), headers = {};
    let target = path.replace(/^\//, "");
    for (const [parameter, input] of inputs) {
      if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value && parameter.in === "query") query.append(parameter.name, input.value);
      else if (input.value && parameter.in === "header") headers[parameter.name] = input.value;
    }
    const token = document.getElementById("token").value;
    if (token) headers.Authorization = `Bearer ${token}`;
    let body;
    if (file.files.length) [body, headers["Content-Type"]] = [file.files[0], file.files[0].type || "application/octet-stream"];
    else if (text.value) [body, headers["Content-Type"]] = [text.value, "application/json"];
    answer.hidden = false;
    answer.textContent = "…";
    try {
      const response = await fetch(query.size ? `${target}?${query}` : target, { method: method.toUpperCase(), headers, body });
      answer.textContent = `${response.status} ${response.statusText}\n\n${await response.text()}`;
    } catch (error) {
      answer.textContent = String(error);
    }
  });
  return form;
}

function parameterTable(operation, inputs) {
  const table = made("table");
  for (const parameter of operation.parameters || []) {
    const input = made("input");
    input.setAttribute("aria-label", parameter.name);
    inputs.push([parameter, input]);
    table.append(made("tr", "", made("td", "", made("code", parameter.name)),
      made("td", parameter.in + (parameter.required ? ", required" : "")), made("td", parameter.description), made("td", "", input)));
  }
  return table;
}

function shown(method, path, operation, api) {
  const inputs = [], details = made("details");
  details.append(made("summary", "", made("b", method), " ", made("code", path), ` ${operation.summary || ""}`), made("p", operation.description));
  // Filled when it is opened: the schemas are long.
  details.addEventListener("toggle", () => {
    if (operation.parameters) details.append(made("h3", "Parameters"), parameterTable(operation, inputs));
    if (operation.requestBody) details.append(made("h3", "Body"), ...shape(operation.requestBody.content, api));
    for (const [status, response] of Object.entries(operation.responses))
      details.append(made("details", "", made("summary", `${status} ${response.description}`), ...shape(response.content, api)));
    details.append(made("h3", "Try it"), tryForm(method, path, operation, inputs));
  }, { once: true });
  return details;
}

async function main() {
  document.getElementById("access").addEventListener("submit", (event) => event.preventDefault());
  const api = await (await fetch("openapi.json")).json(), sections = new Map();
  document.getElementById("about").textContent = `${api.info.title} ${api.info.version}. ${api.info.description}`;
  for (const [path, operations] of Object.entries(api.paths))
    for (const [method, operation] of Object.entries(operations)) {
      const name = operation.tags?.[0] || "other";
      if (!sections.has(name)) sections.set(name, made("section", "", made("h2", name)));
      sections.get(name).append(shown(method, path, operation, api));
    }
  document.getElementById("operations").append(...sections.values());
}

main().catch((error) => { document.getElementById("about").textContent = `The API can't be shown: ${error}`; });
