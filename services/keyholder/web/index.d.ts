/** Queries models that are evaluated on encrypted inputs; the key stays here. */

/** What is given for a feature: numbers, or text as people write it, or a label. */
export type Cell = string | number | boolean | null | undefined;
export type Label = string | number;

/** A column of numbers, with its declared bounds. */
export interface NumberFeature {
  name: string;
  low: number;
  high: number;
  missing: number | null;
}

/** A column of labels from a declared list. */
export interface CategoryFeature {
  name: string;
  categories: Label[];
  missing: Label | null;
  unknown: "refuse" | "ignore";
}

/** What of a model card answers and inputs depend on. */
export interface Card {
  name: string;
  estimator: string;
  outOfBounds: "refuse" | "clip";
  data: {
    dataset: string;
    task: "classification" | "regression";
    features: (NumberFeature | CategoryFeature)[];
    /** Height and width in pixels, where the features are an image. */
    imageShape: [number, number] | null;
    pool: number;
    classes: Label[];
    /** Bounds of a regression's values, where they are declared. */
    target: { low: number; high: number } | null;
  };
}

export interface Answer {
  /** Predicted class; null of a regression. */
  label: Label | null;
  /** Predicted value; null of a classification. */
  value: number | null;
  /** Of each class; null where the estimator has none. */
  probabilities: number[] | null;
  /** One for two classes and for a regression, else one for each class. */
  scores: number[];
}

/** One encrypted row, and what became of it. */
export interface Query {
  answer: Answer;
  /** The circuit's integers, one for each output. */
  integers: BigInt64Array;
  /** All that the service received of the row, and what it answered. */
  sent: {
    /** The body of the request. */
    ciphertext: Uint8Array<ArrayBuffer>;
    /** Of it, in hexadecimal digits. */
    sha256: string;
    /** Length of the encrypted result. */
    bytesDown: number;
  };
  milliseconds: {
    /** Key, encryption and message. */
    encrypt: number;
    /** The request, repetitions included, without its evaluation. */
    network: number;
    /** As the service says; null where it does not, and `network` is then the whole request. */
    evaluate: number | null;
    decrypt: number;
  };
}

/** What a row gives in the clear. */
export interface Clear {
  /** Of the circuit's integers. */
  quantised: Answer;
  /** Those integers, which the encrypted ones must equal. */
  integers: BigInt64Array;
  /** Of the model as it was trained. */
  float: Answer;
}

/** The compiled core. */
export interface Lwe {
  isSafe(dimension: number, std: number): boolean;
}
export const Lwe: {
  /** Fetch and compile the build that this browser runs, from a folder with both. */
  load(folder?: URL): Promise<Lwe>;
  /** Compile lwe.simd.wasm or lwe.wasm. */
  compile(code: Uint8Array<ArrayBuffer>): Promise<Lwe>;
};

export interface Options {
  /** The current one by default. */
  version?: string;
  /** Of the service, where it needs one. */
  apiKey?: string;
  /** What happens to numbers outside their declared bounds; what the card says by default. */
  outOfBounds?: "refuse" | "clip";
  /** How long a request is repeated while the service is busy; 60 by default. */
  retrySeconds?: number;
  /** What requests go through; the page's own by default. */
  fetch?: typeof fetch;
}

/** A model that is evaluated on encrypted rows; every query has a key of its own. */
export interface EncryptedModel {
  readonly card: Card;
  /** The version in use, the SHA-256 of its client.zip, and what evaluates at the service. */
  readonly description: { version: string; clientDigest: string; evaluator: string | null };
  /** What is encrypted of a row. Throws as `predict`. */
  quantise(row: readonly Cell[]): BigInt64Array;
  /**
   * Predict from raw values in the order of the card's features. Throws a `CloisterError` where the
   * row does not fit the card, or the service does not answer with a result.
   */
  predict(row: readonly Cell[]): Promise<Answer>;
  /** The same, with what was sent and where the time went. */
  query(row: readonly Cell[]): Promise<Query>;
  /**
   * What the row gives in the clear, computed here; null where the service publishes no reference.
   * Throws as `quantise`, or because the reference is damaged or of another model.
   */
  clear(row: readonly Cell[]): Promise<Clear | null>;
}
export const EncryptedModel: {
  /** Fetch what is needed to query a model, and check it. Throws a `CloisterError`. */
  open(url: string, name: string, options?: Options): Promise<EncryptedModel>;
};

/** What a feature's value must be, for people. */
export function described(feature: NumberFeature | CategoryFeature): string;

/** Base of all errors. Messages say where and why, and never a value. */
export class CloisterError extends Error {
  constructor(message: string);
}
/** The service could not be reached, or was busy, for as long as retrying was allowed. */
export class ServiceUnavailable extends CloisterError {}
/** The service answered with an HTTP error that asking again would not change. */
export class RequestRefused extends CloisterError {
  constructor(status: number, detail: string);
  status: number;
  detail: string;
}
/** An answer is too large, not what the protocol says, or not what its digest promises. */
export class InvalidAnswer extends CloisterError {}
/** What should be an encrypted result cannot be one. Its key is gone: encrypt again. */
export class InvalidResult extends InvalidAnswer {}
/** A client.zip is damaged, too large, or not for the circuits that this client knows. */
export class InvalidClientPackage extends CloisterError {}
/** A client.zip was made by another version of Concrete than this client is for. */
export class IncompatibleVersion extends InvalidClientPackage {}
/** A client.zip asks for encryption below 128 bits of security, or of an unknown kind. */
export class UnsafeParameters extends InvalidClientPackage {}
/** A key has opened its one result. */
export class KeyUnusable extends CloisterError {}
