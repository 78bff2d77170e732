// Shows openapi.json as a readable page, without anything from elsewhere.
"use strict";

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

fetch("openapi.json").then((answer) => answer.json()).then((schema) => {
  const place = document.getElementById("operations");
  for (const [path, operations] of Object.entries(schema.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      const part = element("section", "", "operation");
      const title = element("h2");
      title.append(element("span", method.toUpperCase(), `method ${method}`), element("code", path));
      part.append(title, element("p", operation.description || operation.summary || ""));
      const parameters = operation.parameters || [];
      if (parameters.length) {
        const table = element("table");
        for (const each of parameters) {
          const row = element("tr");
          row.append(
            element("td", each.name),
            element("td", each.in),
            element("td", `${each.required ? "required. " : ""}${each.description || ""}`),
          );
          table.append(row);
        }
        part.append(table);
      }
      part.append(element("p", `Answers: ${Object.keys(operation.responses).join(", ")}`, "quiet"));
      place.append(part);
    }
  }
});
