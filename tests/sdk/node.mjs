// The SDKs that are for Node: one call a line on standard input, as JSON; its value a line on standard output.
import { createInterface } from "node:readline";
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto; // Node 18 has it, but not there

const octokit = await import("@octokit/webhooks-methods");
const sanity = await import("@sanity/webhook");

const calls = {
  "octokit.sign": octokit.sign,
  "octokit.verify": octokit.verify,
  "sanity.encodeSignatureHeader": sanity.encodeSignatureHeader,
  "sanity.isValidSignature": sanity.isValidSignature,
};

for await (const line of createInterface({ input: process.stdin })) {
  const { name, values } = JSON.parse(line);
  let answer;
  try {
    answer = { value: await calls[name](...values) };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
