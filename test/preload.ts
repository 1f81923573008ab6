// Bun runs this before each test file with `--isolate`, before the first one without.
import { afterAll, setDefaultTimeout } from "bun:test";
import { removeTemporaryFolders } from "./support/temporary.ts";
import { TEST_LIMIT_MS } from "./support/waiting.ts";

// Bun's own 5 s are for what only computes: here programs are started, on machines that may be busy.
setDefaultTimeout(TEST_LIMIT_MS);

afterAll(removeTemporaryFolders);
