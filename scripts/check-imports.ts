/**
 * Checks that imports between the folders of `src` point the way the table says.
 *
 * Exit code 1 and one line for each import that does not.
 */
import { Glob } from "bun";

/** Which folders a folder may import from, besides itself. The same table stands in docs/ARCHITECTURE.md. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  core: [],
  protocol: ["core"],
  channel: ["core"],
  crypto: ["core", "protocol"],
  net: ["core", "channel"],
  observe: ["core"],
  config: ["core", "protocol"],
  upstream: ["core", "protocol", "channel", "crypto", "net"],
  proxy: ["core", "protocol", "channel", "crypto", "net", "upstream"],
  workers: ["core", "net", "proxy"],
  cli: ["core", "protocol", "channel", "crypto", "net", "upstream", "proxy", "workers", "observe", "config"],
  main: ["cli", "core"],
};

/** Folders that must stay free of packages and of the runtime's own modules. */
const PURE = new Set(["core", "protocol", "channel"]);

const IMPORT =
  /(?:^|\n)\s*(?:import|export)\s[^"';]*?from\s+"([^"]+)"|import\("([^"]+)"\)|(?:^|\n)import\s+"([^"]+)"/g;

const root = new URL("../src/", import.meta.url).pathname;
const problems: string[] = [];
let files = 0;
for await (const file of new Glob("**/*.ts").scan(root)) {
  files += 1;
  const folder = file.includes("/") ? file.slice(0, file.indexOf("/")) : file.replace(/\.ts$/, "");
  const allowed = ALLOWED[folder];
  if (allowed === undefined) {
    problems.push(`src/${file}: the folder ${folder} is not in the table`);
    continue;
  }
  const text = await Bun.file(`${root}${file}`).text();
  for (const match of text.matchAll(IMPORT)) {
    const specifier = match[1] ?? match[2] ?? match[3] ?? "";
    if (!specifier.startsWith(".")) {
      if (PURE.has(folder)) problems.push(`src/${file}: ${folder} may not import the package ${specifier}`);
      continue;
    }
    const target = new URL(specifier, `file:///${file}`).pathname.slice(1);
    const targetFolder = target.includes("/")
      ? target.slice(0, target.indexOf("/"))
      : target.replace(/\.ts$/, "");
    if (targetFolder !== folder && !allowed.includes(targetFolder) && !specifier.endsWith("package.json")) {
      problems.push(`src/${file}: ${folder} may not import from ${targetFolder} (${specifier})`);
    }
  }
}
for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exit(1);
console.log(`imports: ${files} files follow the table`);
