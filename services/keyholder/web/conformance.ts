// The declared interface is the implementation's: `deno check` compares them.
import type * as declared from "./index.d.ts";
import * as implemented from "./src/index.js";

export default implemented satisfies typeof declared;
