// What a policy in TypeScript or JavaScript imports. README.md says how to write one.

/** Any value of a request, of parameters or of data. An integer beyond 2^53 is a BigInt. */
export type Value = null | boolean | number | bigint | string | Value[] | { [name: string]: Value }

/** A map. It has no prototype: a name that was not sent is undefined, whatever it is. */
export type Fields = { [name: string]: Value | undefined }

export interface Entity {
  type: string
  id: string
  properties?: Fields
}

export interface Signal {
  detector: string
  version?: string
  score?: number
  text?: string
  [name: string]: Value | undefined
}

/** What a workload asks at a decision point. */
export interface Request {
  point: string
  id?: string
  subject: Entity
  action: { name: string; properties?: Fields }
  resource: Entity
  context?: Fields
  document?: Value
  supported_obligations?: string[]
  signals?: Signal[]
}

export type Verdict = "deny" | "require_approval" | "throttle" | "transform" | "allow"

/** Why: code is for machines and stable, text is for people. */
export interface Reason {
  code: string
  text: string
}

/** What the asker must do: redact, route, cap, label, notify. */
export interface Obligation {
  type: string
  id?: string
  properties?: object
}

/** What a policy says. value is any document; what is undefined in a map is left out. */
export interface Decision {
  verdict: Verdict
  reasons?: Reason[]
  obligations?: Obligation[]
  value?: unknown
}

declare const __holdfast: {
  log(level: number, text: string): void
  now(): bigint
  match(pattern: number, text: string): boolean
  parseTime(text: unknown): bigint | undefined
  isInt(v: unknown): boolean
}

const native = __holdfast

/** A decision with one reason, which obligations and a value may follow. */
export function decision(verdict: Verdict, code: string, text: string, more?: { obligations?: Obligation[]; value?: unknown }): Decision {
  return { verdict, reasons: [{ code, text }], obligations: more?.obligations, value: more?.value }
}

export const deny = (code: string, text: string): Decision => decision("deny", code, text)
export const allow = (code: string, text: string, value?: unknown): Decision => decision("allow", code, text, { value })

/** The request's instant, in nanoseconds since 1970; Date.now() is the same in milliseconds. */
export const now: () => bigint = native.now

/** Whether the manifest's pattern of that number, from 0, matches. Throws when there is none. */
export const match: (pattern: number, text: string) => boolean = native.match

/**
 * A time in RFC 3339, in nanoseconds since 1970; undefined for anything else. Years
 * 1970 to 2200, at most nine digits of a second, no leap second.
 */
export const parseTime: (text: unknown) => bigint | undefined = native.parseTime

/**
 * Whether a value is a whole number that came as one: 1 is, 1.0 is not, as a JSON
 * text tells them apart. README.md says where that cannot be known.
 */
export const isInt = native.isInt as (v: unknown) => v is number | bigint

export const isText = (v: unknown): v is string => typeof v === "string"
export const isList = (v: unknown): v is Value[] => Array.isArray(v)
export const isMap = (v: unknown): v is Fields => typeof v === "object" && v !== null && !Array.isArray(v)

/** Messages that are kept beside the record: at most 32 and 4 KiB of a decision. */
export const log = {
  debug: (text: string): void => native.log(0, text),
  info: (text: string): void => native.log(1, text),
  warn: (text: string): void => native.log(2, text),
  error: (text: string): void => native.log(3, text),
}
