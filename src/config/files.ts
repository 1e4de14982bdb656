/** Reads what a configuration consists of. */
import { constants, type FileHandle, open } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

export const MOST_CONFIG_BYTES: number = 1024 * 1024
export const MOST_VALUE_BYTES: number = 64 * 1024
/** Read or write for everybody. */
const FOR_OTHERS = 0o006

export interface Contents {
  readonly text: string
  /** True if every account of the machine can read or change it; never where files have no such rights. */
  readonly isOpen: boolean
}

/** The text of a regular file; rejects with an error whose message says why not, and no more. */
export async function readText(path: string, mostBytes: number): Promise<Contents> {
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch(refused)
  try {
    return await contentsOf(handle, mostBytes)
  } finally {
    await handle.close()
  }
}

/** The path that is meant; undefined for anything but a path or a `file:` URL. */
export function filePath(file: string | URL): string | undefined {
  if (typeof file === 'string') return file
  try {
    return fileURLToPath(file)
  } catch {
    return undefined
  }
}

export function folderOf(path: string): string {
  return dirname(path)
}

/** Paths are meant from the folder of the file that says them. */
export function pathFrom(folder: string, path: string): string {
  return resolve(folder, path)
}

async function contentsOf(handle: FileHandle, mostBytes: number): Promise<Contents> {
  const stat = await handle.stat()
  if (!stat.isFile()) throw new Error('something else')
  if (stat.size > mostBytes) throw new Error(`${stat.size} bytes`)
  // Not as many bytes as it had a moment ago: it may have grown since.
  const buffer = Buffer.alloc(mostBytes + 1)
  let length = 0
  for (;;) {
    const { bytesRead } = await handle.read(buffer, length, buffer.length - length)
    length += bytesRead
    if (length > mostBytes) throw new Error(`more than ${mostBytes} bytes`)
    if (bytesRead === 0) break
  }
  const isOpen = process.platform !== 'win32' && (stat.mode & FOR_OTHERS) !== 0
  return { text: utf8(buffer.subarray(0, length)), isOpen }
}

/** Without a byte-order mark. Another encoding, read as if it were this one, would be a key that is not quite the key. */
function utf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new Error('a text that is not UTF-8')
  }
}

function refused(error: NodeJS.ErrnoException): never {
  throw new Error(error.code === 'ENOENT' ? 'none' : (error.code ?? 'none'))
}
