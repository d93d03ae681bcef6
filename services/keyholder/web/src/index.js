export { described } from "./preprocessing.js";
export * from "./errors.js";
export { Lwe } from "./lwe.js";
export { EncryptedModel } from "./model.js";
