import { type ChildProcess, fork } from 'node:child_process'

/** A process that runs one of the bench's scripts and has said it is ready. */
export interface Child<Ready> {
  readonly ready: Ready
  /** Asks a question of the script's; resolves with its answer. One at a time. */
  ask<Answer>(question: string | object): Promise<Answer>
  /** Asks it to end and waits until it has: a profile is written on the way out. */
  stop(): Promise<void>
}

/** Longest wait for a child that was asked to end, ms; a profile takes a while to write. */
const END_MS = 10_000

/** The processes of one bench. They end with it, however it ends: a child whose parent is gone ends by itself. */
export class Children {
  readonly #alive = new Map<ChildProcess, Promise<void>>()

  /** Starts `bench/<script>`; resolves with the first message it sends. */
  async start<Ready>(
    script: string,
    args: readonly string[] = [],
    flags: readonly string[] = [],
    env: NodeJS.ProcessEnv = process.env,
  ): Promise<Child<Ready>> {
    const child = fork(new URL(script, import.meta.url), args, { execArgv: [...flags], env })
    const ended = new Promise<void>((resolve) => {
      child.once('exit', () => {
        this.#alive.delete(child)
        resolve()
      })
    })
    this.#alive.set(child, ended)
    const next = <Message>(): Promise<Message> =>
      new Promise((resolve, reject) => {
        const gone = (): void => reject(new Error(`bench/${script} ended too early`))
        child.once('exit', gone)
        child.once('message', (message) => {
          child.off('exit', gone)
          resolve(message as Message)
        })
      })
    const ready = await next<Ready>()
    return {
      ready,
      ask(question) {
        const answer = next<never>()
        child.send(question)
        return answer
      },
      stop: () => end(child, ended),
    }
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#alive].map(([child, ended]) => end(child, ended)))
  }
}

async function end(child: ChildProcess, ended: Promise<void>): Promise<void> {
  if (child.connected) child.disconnect()
  const timer = setTimeout(() => child.kill('SIGKILL'), END_MS)
  await ended
  clearTimeout(timer)
}

/** For children: tells the parent, answers what it asks, and ends when it lets go or dies. */
export function serveParent(ready: string | number, answer: (question: unknown) => unknown = () => ''): void {
  const send = process.send?.bind(process)
  if (send === undefined) throw new Error('this script is started by the bench, not by hand')
  process.once('disconnect', () => process.exit(0))
  process.on('SIGINT', () => {}) // Ctrl-C reaches the whole group: the parent's end is ours
  process.on('message', async (question) => send(await answer(question)))
  send(ready)
}

/** CPU time this process has used, us: what a busy neighbour on the machine changes least. */
export function cpuUs(): number {
  const { user, system } = process.cpuUsage()
  return user + system
}
