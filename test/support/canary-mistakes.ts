// Configurations that are wrong in every way, with a secret in each.
import { Secret } from 'evenkeel'
import { CANARIES } from './canaries.ts'

const GOOD_PROVIDER = `name = "P"\nbase_url = "http://127.0.0.1:1"\napi_key = ${JSON.stringify(CANARIES.key.value)}\nmodels = ["m"]`
const GOOD_USER = `name = "U"\ntoken = ${JSON.stringify(CANARIES.user.value)}`
const TWO = 'backends = ["http://127.0.0.1:1", "http://127.0.0.1:2"]'

/** What is left of a secret in a name that needs no quotes. */
export function wordOf(value: string): string {
  return value.replace(/[^A-Za-z0-9_-]/g, '')
}

/** Files that are wrong in one way or another, with a secret, quoted, in them. */
export function wrongFiles(text: string): readonly string[] {
  const bare = text.slice(1, -1)
  const word = wordOf(bare)
  const provider = (line: string) => `[providers.p]\n${GOOD_PROVIDER}\n${line}`
  const replaced = (name: string, value: string) =>
    `[providers.p]\n${GOOD_PROVIDER.replace(new RegExp(`^${name} = .*$`, 'm'), () => `${name} = ${value}`)}`
  return [
    // No TOML.
    `api_key = "${bare}`,
    `api_key = ${bare}`,
    `api_key = ${text} ${bare}`,
    `[providers.p]\n${GOOD_PROVIDER}\napi_key = ${text}`,
    `[providers.${bare}]`,
    `[providers.p\napi_key = ${text}`,
    `api_key = '''${bare}`,
    `x = [${text}, ${bare}]`,
    `${bare} = 1`,
    `a = 2020-99-99 # ${bare}`,
    // Another type.
    replaced('api_key', `[${text}]`),
    replaced('api_key', `{ value = ${text} }`),
    replaced('models', text),
    replaced('base_url', text),
    replaced('base_url', `"http://${word}:${encodeURIComponent(word)}@127.0.0.1"`),
    replaced('base_url', `"http://127.0.0.1/?key=${bare}"`),
    replaced('base_url', `"http://127.0.0.1/#${bare}"`),
    replaced('base_url', `"ftp://${bare}"`),
    provider(`headers = ${text}`),
    provider(`headers = [${text}]`),
    provider(`headers.x = [${text}]`),
    provider(`headers.x = ${JSON.stringify(`a\n${JSON.parse(text)}`)}`),
    provider(`headers.${text} = "x"`),
    provider(`enabled = ${text}`),
    provider(`backend_type = ${text}`),
    provider(`timeout_seconds = ${text}`),
    // Beside an unknown key, and in its name.
    provider(`apikey = ${text}`),
    provider(`apy_key = ${text}\nnmae = 1`),
    provider(`${text} = "api_key"`),
    provider(`${word} = "api_key"`),
    provider(`"api_key ${bare}" = 1`),
    provider(`api_key_${word} = 1`),
    `${TWO}\n${word} = 1\n[settings.${word}]\n[settings.retry]\n${word} = 1\n"attempts=${bare}" = 2`,
    `${TWO}\n[settings.health.active.headers]\n${text} = ${text}`,
    // In the wrong place.
    `${TWO}\n[settings]\nstrategy = ${text}\nname = 1`,
    `${TWO}\n[settings]\nstrategy = { name = ${text} }\norigins = [${text}]`,
    `${TWO}\n[settings]\nretry = ${text}\nhedge = { delay = ${text} }\nbreaker = { trip = ${text} }`,
    `${TWO}\n[settings]\ntimeouts.connect = ${text}\ntimeouts.total_ms = ${text}\nhealth.active.type = ${text}`,
    `${TWO}\n[settings.health.active]\npath = ${text}\nstatus = ${text}\nmethod = ${text}`,
    `${TWO}\n[settings.undici]\ntls = ${text}\nconnections = ${text}`,
    `backends = ${text}`,
    `backends = [${text}]`,
    `[[backends]]\nurl = ${text}\nid = ${text}\nweight = ${text}\ntags = ${text}\nmeta = ${text}`,
    `[[backends]]\nurl = "http://a"\nid = "${word} and more"\nzone = [${text}]`,
    `[pools]\na = ${text}\n[pools.${text}]\n${TWO}`,
    `[providers.p]\n${GOOD_PROVIDER}\n[models.m]\nname = ${text}\nstrategy = ${text}\nbackends = [{ provider = ${text}, model = ${text} }]`,
    `[users.u]\nname = 1\ntoken = ${text}\nallowed_models = [${text}]`,
    `[users.u]\nname = "U"\ntoken = [${text}]`,
    `[users.u]\nname = "U"\ntoken = ${JSON.stringify(`${JSON.parse(text)} and more`)}`,
    `[users.u]\n${GOOD_USER}\n${text} = 1\n[users.v]\n${GOOD_USER}`,
    // Templates that lead nowhere.
    provider(`headers.x = "\${env:${word}}"`),
    provider(`headers.x = "\${file:${word}}"`),
    provider(`headers.x = "\${${word}:${word}}"`),
    provider(`headers.x = "\${${bare}"`),
    provider(`headers.x = "Bearer ${bare}\${env:MISSING}"`),
    // From elsewhere, into the wrong place.
    `${TWO}\n[settings]\nstrategy = "\${env:SECRET}"\ntimeouts.connect = "\${env:SECRET}"\nretry.attempts = "\${file:key}"`,
    `backends = ["\${env:SECRET}", "http://\${file:key}@h", "http://u:\${env:SECRET}@h/", "http://h/?\${env:SECRET}"]`,
    `[[backends]]\nurl = "http://a"\nid = "\${file:key}\${env:SECRET}"\nheaders.x = "\${file:key}\\n"`,
  ]
}

/** Options that are wrong in one way or another, with a secret in them. */
export function wrongOptions(text: string): readonly unknown[] {
  const backends = [{ url: 'http://a.test', headers: { authorization: text } }]
  const a = 'http://a.test'
  return [
    text,
    [text],
    { [text]: 1, backends },
    { [`backends ${text}`]: 1, backends },
    { backends: text },
    { backends: [text] },
    {
      backends: [{ url: text, id: `${text} `, weight: text, tags: text, zone: [text], timeouts: { connectMs: text } }],
    },
    { backends: [`http://u:${encodeURIComponent(text)}@a.test`, `http://a.test?${text}`, `http://a.test/#${text}`] },
    {
      backends: [
        { url: a, headers: text },
        { url: a, headers: [text] },
        { url: a, headers: { [text]: 'x' } },
      ],
    },
    {
      backends: [
        { url: a, headers: { x: `${text}\n` } },
        { url: a, headers: { x: [text] } },
      ],
    },
    {
      backends: [
        { url: a, headers: { x: new Secret(`${text}\0`) } },
        { url: a, [text]: 1 },
      ],
    },
    {
      backends: [
        { url: a, id: 'a', headers: { x: text } },
        { url: a, id: 'a' },
      ],
    },
    { backends, strategy: text },
    { backends, strategy: { name: text } },
    { backends, strategy: { name: 'ring-hash', key: text } },
    { backends, strategy: { name: 'ring-hash', key: 'call', [text]: text } },
    { backends, name: [text], origins: [text, `https://u:${text}@a.test`], route: text, logger: text, log: text },
    { backends, retry: { attempts: text, status: text, [text]: 1 }, hedge: text, breaker: { trip: text } },
    { backends, health: { active: { headers: [text], path: text, status: text, type: text, match: [text] } } },
    { backends, health: { active: { headers: { [text]: text }, probe: { name: text, check: text } }, passive: text } },
    { backends, undici: { tls: text, connections: text, [text]: 1 } },
    { backends, undici: { tls: { passphrase: text }, keepAliveMs: 'x' }, timeouts: { totalMs: text } },
    { backends, transport: text, policies: [text], sinks: [{ name: text }], watchers: text, classes: { [text]: text } },
    { pools: { [text]: { backends } } },
    { pools: { a: { backends, [text]: text } }, backends },
    { pools: { a: text } },
    { backends, clock: { [text]: text }, random: text, revisions: text },
    Object.defineProperty({ backends }, 'retry', { enumerable: true, get: () => JSON.parse('{') }),
  ]
}
