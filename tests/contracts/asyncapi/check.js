// Prints what the official parser finds wrong with the AsyncAPI document on standard input, one problem a line.
import { Parser } from '@asyncapi/parser';
import { text } from 'node:stream/consumers';

const { document, diagnostics } = await new Parser().parse(await text(process.stdin));
for (const found of diagnostics) console.log(`${found.severity} ${found.path.join('/')}: ${found.message}`);
if (document === undefined) process.exitCode = 1;
else console.error(document.allOperations().all().map((one) => `${one.action()} ${one.id()}`).join('\n'));
