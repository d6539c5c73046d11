// SPDX-License-Identifier: Apache-2.0
/** Server-sent events out of a response. */

/** Yields the data of each event as text. Ends with the body; what the network breaks is thrown. */
export async function* events(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let lines = [];
  for (;;) {
    const { done, value } = await reader.read();
    rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
    const parts = rest.split(/\r?\n/);
    rest = done ? "" : parts.pop();
    for (const line of parts) {
      if (line.startsWith("data:")) {
        lines.push(line.slice(line[5] === " " ? 6 : 5));
      } else if (line === "" && lines.length) {
        yield lines.join("\n");
        lines = [];
      }
    }
    if (done) break;
  }
  if (lines.length) yield lines.join("\n");
}
