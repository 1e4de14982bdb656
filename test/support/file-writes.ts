import {
  lstatSync,
  mkdtempSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'

/** A way to write a file, done when it returns. */
export type Way = (file: string, text: string) => void

/** As Kubernetes updates a ConfigMap: `..data` becomes a link to another folder, the file itself stays a link through it. */
const swapped: Way = (file, text) => {
  const folder = dirname(file)
  const data = join(folder, '..data')
  const old = isLink(data) ? readlinkSync(data) : undefined
  const young = mkdtempSync(`${folder}/..version-`)
  writeFileSync(join(young, basename(file)), text)
  link(basename(young), data)
  if (!isLink(file)) link(join('..data', basename(file)), file)
  if (old !== undefined) rmSync(join(folder, old), { recursive: true })
}

const renamed: Way = (file, text) => {
  writeFileSync(`${file}.new`, text)
  renameSync(`${file}.new`, file)
}

/** Emptied, then filled. */
const inPlace: Way = (file, text) => writeFileSync(file, text)

/** As vim does it: the old one renamed, a new one written, the old one deleted. */
const besides: Way = (file, text) => {
  renameSync(file, `${file}~`)
  writeFileSync(file, text)
  unlinkSync(`${file}~`)
}

/** In an order in which each sets out from where the one before ended: the first swap makes the link, the second has it. */
export const WAYS: readonly Way[] = [swapped, swapped, renamed, inPlace, besides]

/** In one step, whatever was there. */
function link(target: string, path: string): void {
  symlinkSync(target, `${path}_tmp`)
  renameSync(`${path}_tmp`, path)
}

function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() ?? false
}
