/** Sums as numpy 1.26 rounds them, so that what is made of them is equal to the last bit. */

const UNROLLED = 8;
const BLOCK = 128;

/**
 * @param {ArrayLike<number>} values
 * @param {number} [start]
 * @param {number} [count]
 * @returns {number}
 */
export function pairwiseSum(values, start = 0, count = values.length) {
  /** @param {number} index */
  const at = (index) => values[start + index] ?? 0;
  if (count < UNROLLED) {
    let sum = 0;
    for (let index = 0; index < count; index++) sum += at(index);
    return sum;
  }
  if (count > BLOCK) {
    let half = Math.floor(count / 2);
    half -= half % UNROLLED;
    return pairwiseSum(values, start, half) + pairwiseSum(values, start + half, count - half);
  }
  const r = Array.from({ length: UNROLLED }, (_, lane) => at(lane));
  let index = UNROLLED;
  for (; index < count - (count % UNROLLED); index += UNROLLED) {
    for (let lane = 0; lane < UNROLLED; lane++) r[lane] = (r[lane] ?? 0) + at(index + lane);
  }
  const [r0 = 0, r1 = 0, r2 = 0, r3 = 0, r4 = 0, r5 = 0, r6 = 0, r7 = 0] = r;
  let sum = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7));
  for (; index < count; index++) sum += at(index);
  return sum;
}
