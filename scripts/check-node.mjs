// Stops npm scripts on a Node that is too old, with one message instead of a puzzling syntax error later.
// Plain old JavaScript on purpose: it has to run on the Node it complains about.
const needed = [22, 19]
const found = process.versions.node.split('.').map(Number)
const enough = found[0] > needed[0] || (found[0] === needed[0] && found[1] >= needed[1])

if (!enough) {
  console.error(
    [
      `evenkeel: this is Node ${process.versions.node} (${process.execPath}), but Node >= 22.19 is needed.`,
      'Tests, benchmarks and examples are TypeScript files that Node runs as they are, which older versions cannot do.',
      'Do one of these:',
      '  - run `npm ci` without `--ignore-scripts`: it installs Node 24 into node_modules (the `node` devDependency),',
      '    and `npm test`, `npm start` and the other npm scripts then use it;',
      '  - or install Node >= 22.19 yourself and run `npm ci` again.',
    ].join('\n'),
  )
  process.exit(1)
}
