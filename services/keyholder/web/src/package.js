/** client.zip: all that is needed to query a model. */

import { readMembers } from "./archive.js";
import { inputCount, readCard } from "./card.js";
import { IncompatibleVersion, InvalidClientPackage } from "./errors.js";
import { linkOf } from "./links.js";
import { readProcessing } from "./processing.js";
import { array, integer, object, read, text } from "./shape.js";
import { rangeOf, readSpecs } from "./specs.js";

/** @import { Card } from "./card.js" */
/** @import { Link } from "./links.js" */
/** @import { OutputScale, Quantiser } from "./processing.js" */
/** @import { Gate } from "./specs.js" */

/** The most bytes that client.zip may unpack to. */
const UNPACKED_LIMIT = 32 << 20;
const RUNTIME = "concrete-python";
/** Of Concrete, whose encodings and envelope this module has. */
const RUNTIME_VERSION = "2.10.0";

const versions = object({ [RUNTIME]: text }, "ignore");
const circuit = object({ features: array(integer(0, 2 ** 31 - 1), 1) });

/**
 * @typedef {object} ClientPackage The checked content of a client.zip.
 * @property {Card} card
 * @property {Link} link
 * @property {number[]} features ascending indices of the card's inputs that the circuit takes
 * @property {Quantiser} quantiser
 * @property {OutputScale} outputScale
 * @property {Gate} input
 * @property {Gate} output
 */

/**
 * Check a client.zip. Nothing in it is executed.
 *
 * @param {Uint8Array<ArrayBuffer>} data
 * @param {(dimension: number, std: number) => boolean} isSafe the security curve
 * @returns {Promise<ClientPackage>}
 * @throws {InvalidClientPackage} it is damaged, its parts disagree, or the model is a tree
 * @throws {IncompatibleVersion} it was made by another version of Concrete
 * @throws {UnsafeParameters} its parameters would not protect what is encrypted with them
 */
export async function openPackage(data, isSafe) {
  const members = await readMembers(data, UNPACKED_LIMIT);
  /** @param {string} name */
  const member = (name) => {
    const content = members.get(name);
    if (!content) throw new InvalidClientPackage(`client.zip lacks ${name}`);
    return content;
  };
  checkVersion(member("versions.json"));
  const { input, output } = readSpecs(member("client.specs.json"), isSafe);
  const card = readCard(member("card.json"));
  const link = linkOf(card);
  const processing = readProcessing(member("serialized_processing.json"), output.count);
  const { low, high } = rangeOf(input);
  if (processing.quantiser.low < low || processing.quantiser.high > high) {
    throw new InvalidClientPackage("client.zip quantises to what its circuit cannot hold");
  }
  const features = readFeatures(members.get("circuit.json"), inputCount(card.data));
  const nClasses = card.data.classes.length;
  const nOutputs = nClasses > 2 ? nClasses : 1;
  if (input.count !== features.length || output.count !== nOutputs) {
    throw new InvalidClientPackage(
      `client.zip has a circuit of ${input.count} inputs and ${output.count} outputs; its card and ` +
        `circuit.json say ${features.length} and ${nOutputs}`,
    );
  }
  return { card, link, features, ...processing, input, output };
}

/** @param {Uint8Array<ArrayBuffer>} data */
function checkVersion(data) {
  const madeBy = read(
    data,
    versions,
    () => new InvalidClientPackage(`versions.json does not name the version of ${RUNTIME}`),
  )[RUNTIME];
  if (madeBy !== RUNTIME_VERSION) {
    throw new IncompatibleVersion(
      `this model was compiled with ${RUNTIME} ${madeBy.slice(0, 40)}, and this client is for ` +
        `${RUNTIME_VERSION}: use the client of the release that serves the model`,
    );
  }
}

/**
 * @param {Uint8Array<ArrayBuffer> | undefined} data
 * @param {number} nInputs
 */
function readFeatures(data, nInputs) {
  if (!data) return Array.from({ length: nInputs }, (_, index) => index);
  const { features } = read(
    data,
    circuit,
    (why) => new InvalidClientPackage(`circuit.json does not list the features: ${why}`),
  );
  if (features.some((one, at) => one >= nInputs || one <= (features[at - 1] ?? -1))) {
    throw new InvalidClientPackage(
      `circuit.json must list features in ascending order, from 0 to ${nInputs - 1}`,
    );
  }
  return features;
}
