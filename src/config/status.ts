/** '200-399' or '200,204,300-303' as ranges, both ends included. */
export function statusRanges(text: string): { readonly from: number; readonly to: number }[] {
  return text.split(',').map((part) => {
    const [from, to = from] = part.split('-').map(Number)
    return { from: from!, to: to! }
  })
}

/** Whether `statusRanges` can read it: statuses 100..599, ranges not upside down. */
export function isStatusList(text: string): boolean {
  if (!/^\d{3}(-\d{3})?(,\d{3}(-\d{3})?)*$/.test(text)) return false
  return statusRanges(text).every(({ from, to }) => from >= 100 && to <= 599 && from <= to)
}
