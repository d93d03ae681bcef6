// Calls of the client's modules, for tests in Python: a JSON line in, a JSON line out.
import { openPackage } from "../../../services/keyholder/web/src/package.js";
import { toInputs } from "../../../services/keyholder/web/src/preprocessing.js";
import { readCard } from "../../../services/keyholder/web/src/card.js";
import { classIndex, linkOf, probabilities, valueOf } from "../../../services/keyholder/web/src/links.js";
import { Lwe, systemRandom } from "../../../services/keyholder/web/src/lwe.js";
import { unwrap, wrap } from "../../../services/keyholder/web/src/envelope.js";
import { EncryptedModel } from "../../../services/keyholder/web/src/index.js";
import { Quantiser } from "../../../services/keyholder/web/src/processing.js";
import { pairwiseSum } from "../../../services/keyholder/web/src/sums.js";

const dist = new URL("../../../services/keyholder/web/dist/", import.meta.url);
const isSafe = (dimension, std) => core.isSafe(dimension, std);
const core = await Lwe.load();
const bytes = (text) => Uint8Array.fromBase64(text);
const parsed = (text) => readCard(new TextEncoder().encode(text));

// Hands out given randomness, in the order in which it is asked for.
async function given(build, random) {
  let at = 0;
  return await Lwe.compile(await Deno.readFile(new URL(build, dist)), (buffer) => {
    buffer.set(random.subarray(at, at + buffer.length));
    at += buffer.length;
  });
}

const calls = {
  inputs: ({ card, rows, outOfBounds }) => {
    const { data } = parsed(card);
    return rows.map((row) => {
      try {
        return [...toInputs(row, data, outOfBounds)];
      } catch (error) {
        return `${error.name}: ${error.message}`;
      }
    });
  },
  quantise: ({ scale, zeroPoint, low, high, values }) =>
    [...new Quantiser(scale, zeroPoint, low, high).quantise(values)].map(Number),
  sum: ({ values }) => pairwiseSum(values),
  answers: ({ card, scores }) => {
    const link = linkOf(parsed(card));
    return scores.map((row) => [probabilities(row, link), classIndex(row), valueOf(row, link)]);
  },
  safe: ({ parameters }) => parameters.map(([dimension, std]) => isSafe(dimension, std)),
  seal: async ({ build, random, encryption, messages, words }) => {
    const sealed = await (await given(build, bytes(random))).seal(
      encryption,
      BigInt64Array.from(messages, BigInt),
    );
    const scores = [...sealed.key.open(bytes(words))].map(Number);
    let again = "opened";
    try {
      sealed.key.open(bytes(words));
    } catch (error) {
      again = error.name;
    }
    return { ciphertexts: sealed.ciphertexts.toBase64(), scores, again };
  },
  memory: async ({ encryption, messages, words }) => {
    const memories = [];
    const instantiate = WebAssembly.instantiate;
    WebAssembly.instantiate = async (...given) => {
      const instance = await instantiate(...given);
      memories.push(instance.exports.memory);
      return instance;
    };
    try {
      const lwe = await Lwe.compile(await Deno.readFile(new URL("lwe.wasm", dist)), systemRandom);
      const sealed = await lwe.seal(encryption, BigInt64Array.from(messages, BigInt));
      const memory = memories.at(-1);
      const before = new Uint8Array(memory.buffer).some((byte) => byte !== 0);
      if (words) sealed.key.open(bytes(words));
      else sealed.key.wipe();
      return { before, after: new Uint8Array(memory.buffer).some((byte) => byte !== 0) };
    } finally {
      WebAssembly.instantiate = instantiate;
    }
  },
  open: async ({ zip }) => {
    const { card, link, features, quantiser, input, output } = await openPackage(bytes(zip), isSafe);
    return { name: card.name, link, features, quantiser, input, output };
  },
  wrap: async ({ zip, data }) => wrap((await openPackage(bytes(zip), isSafe)).input, bytes(data)).toBase64(),
  unwrap: async ({ zip, result }) =>
    unwrap((await openPackage(bytes(zip), isSafe)).output, bytes(result)).toBase64(),
  predict: async ({ url, model, rows, options }) => {
    const opened = await EncryptedModel.open(url, model, options);
    const answers = [];
    for (const row of rows) answers.push(await opened.predict(row));
    return answers;
  },
  query: async ({ url, model, row }) => {
    const { integers, sent, ...told } = await (await EncryptedModel.open(url, model)).query(row);
    const ciphertext = sent.ciphertext.toBase64();
    return { ...told, integers: [...integers].map(Number), sent: { ...sent, ciphertext } };
  },
  clear: async ({ url, model, rows }) => {
    const opened = await EncryptedModel.open(url, model);
    const found = [];
    for (const row of rows) {
      const clear = await opened.clear(row);
      found.push(clear && { ...clear, integers: [...clear.integers].map(Number) });
    }
    return found;
  },
};

const lines = Deno.stdin.readable
  .pipeThrough(new TextDecoderStream())
  .pipeThrough(new TransformStream({
    start() {
      this.rest = "";
    },
    transform(chunk, controller) {
      const parts = (this.rest + chunk).split("\n");
      this.rest = parts.pop();
      parts.forEach((line) => controller.enqueue(line));
    },
  }));
for await (const line of lines) {
  const { call, ...arguments_ } = JSON.parse(line);
  let reply;
  try {
    reply = { value: await calls[call](arguments_) };
  } catch (error) {
    reply = { error: error.name, message: error.message };
  }
  console.log(JSON.stringify(reply));
}
