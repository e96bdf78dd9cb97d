// Who may call which tool, through how many delegations.
import { allow, Decision, deny, Fields, isInt, isList, isMap, isText, log, match, Request, Value } from "./holdfast"

let maxDelegation: number | bigint
let roles: Map<string, string[]>
let users: Map<string, string[]>

export function configure(params: Fields, data?: Fields) {
  const max = params.max_delegation
  if (!isInt(max) || max < 0) throw new Error("max_delegation is not a whole number from 0")
  maxDelegation = max
  roles = listsOf(data?.roles, "roles")
  users = listsOf(data?.users, "users")
}

function listsOf(v: Value | undefined, name: string): Map<string, string[]> {
  if (!isMap(v)) throw new Error(name + " is not a map")
  const lists = new Map<string, string[]>()
  for (const key in v) {
    const list = v[key]
    if (!isList(list) || !list.every(isText)) throw new Error(`${name}: ${key} is not a list of texts`)
    lists.set(key, list as string[])
  }
  return lists
}

/** The first hit among the roles' tools, or undefined. */
function granted(subject: string, tool: string): string | undefined {
  for (const role of users.get(subject) ?? [])
    for (const t of roles.get(role) ?? []) if (t === tool || t === "*") return t
  return undefined
}

export function decide(request: Request): Decision {
  const { type, id: tool } = request.resource
  const subject = request.subject.id
  if (type !== "tool") return deny("not_a_tool", `a ${type} is not a tool`)
  if (!match(0, tool)) return deny("tool_name_invalid", "the name of the tool is not valid")
  const delegation = request.context?.delegation
  if (delegation !== undefined && !isList(delegation)) return deny("delegation_invalid", "the delegation is not a list of names")
  const names = delegation ?? []
  if (names.length > maxDelegation) return deny("delegation_too_deep", `${names.length} delegations, at most ${maxDelegation}`)
  const hit = granted(subject, tool)
  if (hit === undefined) return deny("tool_not_granted", `${subject} may not call ${tool}`)
  for (const name of names) {
    if (!isText(name)) return deny("delegation_invalid", "the delegation is not a list of names")
    if (granted(name, tool) === undefined) return deny("delegator_not_granted", `${name}, who delegated, may not call ${tool}`)
  }
  if (hit === "*") log.info(`${subject} used a role that may call everything`)
  return allow("granted", `${subject} may call ${tool}`)
}
