/** What can go wrong; as in the Python client, `CloisterError` is the base of all. */

/** Base of the errors of this module. Messages say where and why, and never a value. */
export class CloisterError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = new.target.name;
  }
}

/** The service could not be reached, or was busy, for as long as retrying was allowed. */
export class ServiceUnavailable extends CloisterError {}

/** The service answered with an HTTP error that asking again would not change. */
export class RequestRefused extends CloisterError {
  /**
   * @param {number} status HTTP status code
   * @param {string} detail the service's own explanation
   */
  constructor(status, detail) {
    super(`the service refused the request (${status}): ${detail}`);
    this.status = status;
    this.detail = detail;
  }
}

/** An answer is too large, not what the protocol says, or not what its digest promises. */
export class InvalidAnswer extends CloisterError {}

/** What should be an encrypted result cannot be one. Its key is gone: encrypt again. */
export class InvalidResult extends InvalidAnswer {}

/** A client.zip is damaged, too large, or not for the circuits that this module knows. */
export class InvalidClientPackage extends CloisterError {}

/** A client.zip was made by another version of Concrete than this module is for. */
export class IncompatibleVersion extends InvalidClientPackage {}

/** A client.zip asks for encryption below 128 bits of security, or of an unknown kind. */
export class UnsafeParameters extends InvalidClientPackage {}

/** A key has opened its one result. */
export class KeyUnusable extends CloisterError {}
