// How much may be spent.
import { allow, Decision, decision, deny, Fields, isInt, isList, isMap, isText, now, parseTime, Request, Value } from "./holdfast"

const second = 1_000_000_000n

let cap: bigint
let approvalOver: bigint
let currency: string
let tools: Set<string>
let window: bigint // in nanoseconds

export function configure(params: Fields) {
  cap = wholeNumber(params, "cap", 0n)
  approvalOver = wholeNumber(params, "approval_over", 0n)
  const hours = wholeNumber(params, "window_hours", 1n)
  if (hours > 8760n) throw new Error("window_hours is more than 8760")
  window = hours * 3600n * second
  if (!isText(params.currency)) throw new Error("currency is not a text")
  currency = params.currency
  if (!isList(params.tools) || !params.tools.every(isText)) throw new Error("tools is not a list of texts")
  tools = new Set(params.tools as string[])
}

function wholeNumber(params: Fields, name: string, least: bigint): bigint {
  const v = params[name]
  if (!isInt(v) || v < least) throw new Error(`${name} is not a whole number from ${least}`)
  return BigInt(v)
}

const isAmount = (v: unknown): v is number | bigint => isInt(v) && v >= 0

/** Whether texts are equal but for the case of ASCII letters. */
function sameLetters(a: string, b: string): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i] && lower(a.charCodeAt(i)) !== lower(b.charCodeAt(i))) return false
  return true
}

const lower = (c: number): number => (c >= 65 && c <= 90 ? c + 32 : c)

export function decide(request: Request): Decision {
  const tool = request.resource.id
  if (!tools.has(tool)) return allow("not_a_payment", tool + " moves no money")
  const context = request.context ?? {}
  const args = isMap(context.arguments) ? context.arguments : {}
  const amount = args.amount
  if (!isAmount(amount)) return deny("amount_invalid", "the amount is not a whole number from 0")
  if (!isText(args.currency) || !sameLetters(args.currency, currency)) return deny("currency_unknown", "the cap is in " + currency)
  let spent: Value = context.spent === undefined ? 0 : context.spent
  if (!isAmount(spent)) return deny("spent_invalid", "what was spent is not a whole number from 0")

  let passed: bigint | undefined // since the window began
  if (context.window_start !== undefined) {
    const start = parseTime(context.window_start)
    if (start === undefined) return deny("window_invalid", "the start of the window is not a time")
    passed = now() - start
    if (passed < 0n) return deny("window_invalid", "the window begins in the future")
    if (passed >= window) {
      spent = 0
      passed = 0n // a new window begins now
    }
  }
  return judge(BigInt(amount), BigInt(spent), passed)
}

function judge(amount: bigint, spent: bigint, passed: bigint | undefined): Decision {
  const left = cap - spent
  if (amount > left) {
    const text = `${amount} on top of ${spent} is more than ${cap} ${currency}`
    if (passed === undefined) return deny("over_cap", text)
    const seconds = (window - passed + second - 1n) / second
    return decision("throttle", "over_cap", text, { obligations: [{ type: "retry", properties: { after_seconds: seconds } }] })
  }
  if (amount > approvalOver) return decision("require_approval", "needs_approval", `${amount} is more than ${approvalOver} ${currency}`)
  return allow("within_cap", `${amount} on top of ${spent} is within ${cap} ${currency}`, { remaining: left - amount })
}
