import ts from 'typescript'

/** What a source file takes from another. */
export interface Taken {
  /** As written. */
  readonly from: string
  /** Names taken at run time; '*' for a namespace, a side effect or a dynamic import. */
  readonly values: readonly string[]
  /** Names taken as types. */
  readonly types: readonly string[]
}

/** What the rules of the house need to know about a source file. */
export interface Outline {
  readonly taken: readonly Taken[]
  /** Global names it uses that read time, wait or draw: 'Date', 'setTimeout', 'Math.random', ... */
  readonly globals: readonly string[]
  /** Constructs that are not written here: 'export *', 'enum', 'namespace', 'export default'. */
  readonly constructs: readonly string[]
}

const UNCLEAN = new Set([
  'Date',
  'clearImmediate',
  'clearInterval',
  'clearTimeout',
  'crypto',
  'performance',
  'process',
  'setImmediate',
  'setInterval',
  'setTimeout',
])

export function outlineOf(source: string): Outline {
  const file = ts.createSourceFile('source.ts', source, ts.ScriptTarget.Latest, true)
  const taken: Taken[] = []
  const globals = new Set<string>()
  const constructs = new Set<string>()
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) taken.push(imported(node))
    else if (ts.isExportDeclaration(node)) {
      if (node.moduleSpecifier !== undefined) taken.push(reExported(node))
      if (node.exportClause === undefined || ts.isNamespaceExport(node.exportClause)) constructs.add('export *')
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      taken.push({ from: textOf(node.argument.literal), values: [], types: ['*'] })
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      taken.push({ from: textOf(node.arguments[0]), values: ['*'], types: [] })
    } else if (ts.isExternalModuleReference(node)) {
      taken.push({ from: textOf(node.expression), values: ['*'], types: [] })
    } else if (ts.isEnumDeclaration(node)) constructs.add('enum')
    else if (ts.isModuleDeclaration(node)) constructs.add('namespace')
    else if (ts.isExportAssignment(node) || isDefault(node)) constructs.add('export default')
    else if (ts.isIdentifier(node)) {
      const name = globalOf(node)
      if (name !== undefined) globals.add(name)
    } else if (ts.isElementAccessExpression(node) && isWord(node.expression, 'globalThis', 'Math')) {
      globals.add(`${node.expression.getText(file)}[…]`)
    }
    ts.forEachChild(node, visit)
  }
  visit(file)
  return { taken, globals: [...globals].sort(), constructs: [...constructs].sort() }
}

function imported(node: ts.ImportDeclaration): Taken {
  const from = textOf(node.moduleSpecifier)
  const clause = node.importClause
  if (clause === undefined) return { from, values: ['*'], types: [] }
  const values: string[] = []
  const types: string[] = []
  const wholly = clause.phaseModifier === ts.SyntaxKind.TypeKeyword
  if (clause.name !== undefined) (wholly ? types : values).push('default')
  const { namedBindings } = clause
  if (namedBindings !== undefined && ts.isNamespaceImport(namedBindings)) (wholly ? types : values).push('*')
  if (namedBindings !== undefined && ts.isNamedImports(namedBindings)) {
    for (const it of namedBindings.elements) (wholly || it.isTypeOnly ? types : values).push(nameOf(it))
  }
  return { from, values, types }
}

function reExported(node: ts.ExportDeclaration): Taken {
  const from = textOf(node.moduleSpecifier)
  const { exportClause } = node
  if (exportClause === undefined || !ts.isNamedExports(exportClause)) return { from, values: ['*'], types: [] }
  const isType = (it: ts.ExportSpecifier): boolean => node.isTypeOnly || it.isTypeOnly
  return {
    from,
    values: exportClause.elements.filter((it) => !isType(it)).map(nameOf),
    types: exportClause.elements.filter(isType).map(nameOf),
  }
}

function nameOf(it: ts.ImportSpecifier | ts.ExportSpecifier): string {
  return (it.propertyName ?? it.name).text
}

function textOf(node: ts.Node | undefined): string {
  return node !== undefined && ts.isStringLiteralLike(node) ? node.text : '(computed)'
}

function isDefault(node: ts.Node): boolean {
  return (
    ts.canHaveModifiers(node) &&
    (ts.getModifiers(node)?.some(({ kind }) => kind === ts.SyntaxKind.DefaultKeyword) ?? false)
  )
}

function isWord(node: ts.Node, ...words: readonly string[]): boolean {
  return ts.isIdentifier(node) && words.includes(node.text)
}

/** The global an identifier stands for, if it is one that is not allowed everywhere. */
function globalOf(node: ts.Identifier): string | undefined {
  const { parent, text } = node
  if (ts.isPropertyAccessExpression(parent) && parent.name === node) {
    if (isWord(parent.expression, 'Math') && text === 'random') return 'Math.random'
    return isWord(parent.expression, 'globalThis') && UNCLEAN.has(text) ? `globalThis.${text}` : undefined
  }
  if (!UNCLEAN.has(text)) return undefined
  const isMember =
    (ts.isPropertyAssignment(parent) || ts.isClassElement(parent) || ts.isTypeElement(parent)) && parent.name === node
  return isMember || ts.isTypeReferenceNode(parent) ? undefined : text
}
