// Something to balance: a little HTTP server on each of these ports of this machine.
//
//   node --import ./scripts/from-source.mjs examples/service/upstreams.ts 3001 3002 3003
import { createServer } from 'node:http'

for (const port of process.argv.slice(2)) {
  createServer((request, response) => {
    response.end(`${request.method} ${request.url} came to ${port}\n`)
  }).listen(Number(port), '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${port}`))
}
