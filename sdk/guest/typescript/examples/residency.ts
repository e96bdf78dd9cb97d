// Where data of a class may go.
import { allow, Decision, decision, deny, Fields, isList, isMap, isText, Request } from "./holdfast"

let allowed: Map<string, string[]>
let routes: Map<string, Fields>
let defaultClass: string

export function configure(params: Fields) {
  if (!isMap(params.allowed)) throw new Error("allowed is not a map")
  allowed = new Map()
  for (const name in params.allowed) {
    const regions = params.allowed[name]
    if (!isList(regions) || !regions.every(isText)) throw new Error(`allowed: ${name} is not a list of texts`)
    allowed.set(name, regions as string[])
  }
  if (!isMap(params.routes)) throw new Error("routes is not a map")
  routes = new Map()
  for (const region in params.routes) {
    const route = params.routes[region]
    if (!isMap(route)) throw new Error(`routes: ${region} is not a map`)
    routes.set(region, route)
  }
  if (!isText(params.default_class)) throw new Error("default_class is not a text")
  defaultClass = params.default_class
}

export function decide(request: Request): Decision {
  const given = request.context?.data_classes
  const list = given === undefined ? [defaultClass] : given
  if (!isList(list) || list.length === 0 || !list.every(isText)) return deny("class_invalid", "the data classes are not a list of names")
  const classes = list as string[]
  const unknown = classes.find((c) => !allowed.has(c))
  if (unknown !== undefined) return deny("class_unknown", "no rule for class " + unknown)
  const region = request.resource.properties?.region
  if (!isText(region)) return deny("region_unknown", "the resource does not say where it is")

  const refusing = classes.find((c) => !allows(c, region))
  if (refusing === undefined) return allow("in_region", `${region} is allowed for ${classes.join(", ")}`)
  const to = elsewhere(classes, request.subject.properties?.region)
  if (to === undefined) return deny("no_region", "no region with a route is allowed for " + classes.join(", "))
  return decision("transform", "rerouted", `${region} is not allowed for ${refusing}, ${to} is`, {
    obligations: [{ id: "residency", type: "route", properties: { region: to, target: routes.get(to) } }],
  })
}

function allows(name: string, region: string): boolean {
  const regions = allowed.get(name)!
  return regions.includes(region) || regions.includes("*")
}

/** The region to go to: home if possible, else the first of the first class's. */
function elsewhere(classes: string[], home: unknown): string | undefined {
  const possible = (region: string) => routes.has(region) && classes.every((c) => allows(c, region))
  if (isText(home) && possible(home)) return home
  return allowed.get(classes[0])!.find((region) => region !== "*" && possible(region))
}
