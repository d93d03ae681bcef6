/** What the scores of a model mean, as scikit-learn has it; shared/src/cloister_shared/links.py. */

import { InvalidClientPackage } from "./errors.js";
import { pairwiseSum } from "./sums.js";

/** @import { Card } from "./card.js" */

/**
 * @typedef {"softmax" | "logistic" | "modified Huber" | "margin" | "identity" | "exponential"} Link
 */

/** Estimators of a linear circuit, and what they do. */
const TASKS = /** @type {const} */ ({
  LogisticRegression: "classification",
  LinearSVC: "classification",
  SGDClassifier: "classification",
  LinearRegression: "regression",
  Ridge: "regression",
  Lasso: "regression",
  ElasticNet: "regression",
  LinearSVR: "regression",
  SGDRegressor: "regression",
  PoissonRegressor: "regression",
  GammaRegressor: "regression",
  TweedieRegressor: "regression",
});

/**
 * @param {Card} card
 * @returns {Link}
 * @throws {InvalidClientPackage} its estimator is none that is known here
 */
export function linkOf({ estimator, parameters, data }) {
  if (!Object.hasOwn(TASKS, estimator)) {
    throw new InvalidClientPackage(
      `a ${estimator} is no linear model: a page queries none other. Use the Python client`,
    );
  }
  const known = /** @type {keyof typeof TASKS} */ (estimator);
  if (TASKS[known] !== data.task) {
    throw new InvalidClientPackage(
      `card.json is of a ${data.task}, which a ${estimator} does not do`,
    );
  }
  switch (known) {
    case "LogisticRegression":
      return isOneVersusRest(parameters, data.classes.length) ? "logistic" : "softmax";
    case "SGDClassifier":
      if (parameters.loss === "log_loss") return "logistic";
      if (parameters.loss === "modified_huber") return "modified Huber";
      throw new InvalidClientPackage("card.json has a loss that no SGDClassifier may have here");
    case "LinearSVC":
      return "margin";
    case "PoissonRegressor":
    case "GammaRegressor":
      return "exponential";
    case "TweedieRegressor":
      return tweedie(parameters);
    default:
      return "identity";
  }
}

/**
 * @param {number[]} scores one for two classes, else one for each
 * @param {Link} link
 * @returns {number[] | null} of each class, adding up to 1; null where there are none
 */
export function probabilities(scores, link) {
  // Both of a pair, so that the smaller one is not lost in 1 - p.
  const each = scores.length === 1 ? scores.flatMap((score) => [-score, score]) : scores;
  switch (link) {
    case "softmax": {
      const largest = Math.max(...each);
      return scaled(each.map((score) => Math.exp(score - largest)));
    }
    case "logistic":
      return scaled(each.map(logistic));
    case "modified Huber":
      return scaled(each.map((score) => (Math.min(Math.max(score, -1), 1) + 1) / 2));
    default:
      return null;
  }
}

/**
 * Position of the predicted class: the first where scores are equal.
 *
 * @param {number[]} scores
 */
export function classIndex(scores) {
  if (scores.length === 1) return (scores[0] ?? 0) > 0 ? 1 : 0;
  return scores.indexOf(Math.max(...scores));
}

/**
 * The value that a regression predicts.
 *
 * @param {number[]} scores
 * @param {Link} link
 */
export function valueOf([score = NaN], link) {
  return link === "exponential" ? Math.exp(score) : score;
}

/**
 * @param {Record<string, unknown>} parameters
 * @param {number} nClasses
 */
function isOneVersusRest({ multi_class: kind = "auto", solver }, nClasses) {
  if (kind !== "auto" && kind !== "deprecated") return kind === "ovr";
  return nClasses <= 2 || solver === "liblinear";
}

/**
 * @param {Record<string, unknown>} parameters
 * @returns {Link}
 */
function tweedie({ link = "auto", power = 0 }) {
  if (typeof power !== "number") {
    throw new InvalidClientPackage("card.json has a power that no TweedieRegressor has");
  }
  if (link === "auto") return power <= 0 ? "identity" : "exponential";
  return link === "identity" ? "identity" : "exponential";
}

/** @param {number} score */
function logistic(score) {
  // exp of the negative magnitude cannot overflow.
  const small = Math.exp(-Math.abs(score));
  return (score >= 0 ? 1 : small) / (1 + small);
}

/** @param {number[]} likelihoods */
function scaled(likelihoods) {
  const sum = pairwiseSum(likelihoods);
  return likelihoods.map((one) => (sum > 0 ? one / sum : 1 / likelihoods.length));
}
