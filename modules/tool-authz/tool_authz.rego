# Tool-authz decides whether an agent may call a tool with these arguments. It
# denies unless the agent's role is granted the tool, the arguments fit the
# tool's declaration, and amounts, paths and hosts are within the limits.
# README.md has the request's shape, the parameters and the reason codes.
package tool_authz

# METADATA
# entrypoint: true
decision := {"verdict": verdict, "reasons": sort(faults)}

default verdict := "deny"

verdict := "allow" if count(faults) == 0

# ---------------------------------------------------------------- grants

tool := input.resource.id

grants := data.params.roles[input.subject.properties.role]

faults contains fault("action_unknown", "/action/name", "must be tools/call") if not input.action.name == "tools/call"

faults contains fault("role_unknown", "/subject/properties/role", "no such role in the parameters") if not grants

faults contains fault("tool_denied", "/resource/id", "the role is denied this tool") if listed(grants.deny, tool)

faults contains fault("tool_not_granted", "/resource/id", "the role is not granted this tool") if {
	grants
	not granted
}

# Rules of their own, because "not f(undefined)" is undefined: what is absent
# must not pass.
granted if listed(grants.allow, tool)

declared if is_object(declaration.properties)

argued if is_object(arguments)

# listed: a pattern is a name, or the beginning of names and a star.
listed(patterns, name) if name in patterns

listed(patterns, name) if {
	some pattern in patterns
	endswith(pattern, "*")
	startswith(name, trim_suffix(pattern, "*"))
}

# ----------------------------------------------------------- declaration

declaration := input.resource.properties.declaration

arguments := input.context.arguments

faults contains fault("declaration_missing", "/resource/properties/declaration", "must be the schema of an object") if not declared

faults contains fault("arguments_missing", "/context/arguments", "must be an object") if not argued

# values: every value in the arguments with its path, the name of the argument
# that it is or is an item of, and its schema; null where the declaration has none.
values := [{"path": path, "name": name(path), "value": value, "schema": object.get(declaration, schema_path(path), null)} |
	walk(arguments, [path, value])
]

name(path) := concat("", array.slice(names, count(names) - 1, count(names))) if names := [key | some key in path; is_string(key)]

# schema_path leads from a declaration to what it says of a path in the arguments.
schema_path(path) := [step | some key in path; some step in steps(key)]

steps(key) := ["properties", key] if is_string(key)

steps(key) := ["items"] if is_number(key)

faults contains fault("argument_missing", pointer(array.concat(v.path, [name])), "is required") if {
	some v in values
	is_object(v.value)
	some name in v.schema.required
	not has(v.value, name)
	not v.schema.properties[name].optional == true
}

# An object that declares no properties is free in form.
faults contains fault("argument_unknown", pointer(v.path), "is not declared") if {
	some v in values
	v.schema == null
	last := count(v.path) - 1
	is_string(v.path[last])
	is_object(object.get(declaration, array.concat(schema_path(array.slice(v.path, 0, last)), ["properties"]), null))
}

faults contains fault("argument_type", pointer(v.path), concat("", ["must be of type ", v.schema.type, ", not ", type_name(v.value)])) if {
	some v in values
	v.schema.type
	not of_type(v.schema.type, v.value)
	not left_out(v)
}

faults contains fault("argument_enum", pointer(v.path), "is none of the declared values") if {
	some v in values
	v.schema.enum
	not enumerated(v.schema.enum, v.value)
	not left_out(v)
}

has(object, name) if _ = object[name]

of_type("string", value) if is_string(value)

of_type("integer", value) if {
	is_number(value)
	value == floor(value)
}

of_type("float", value) if is_number(value)

of_type("number", value) if is_number(value)

of_type("boolean", value) if is_boolean(value)

of_type("array", value) if is_array(value)

of_type("tuple", value) if is_array(value)

of_type("dict", value) if is_object(value)

of_type("object", value) if is_object(value)

of_type("null", value) if is_null(value)

of_type("any", _)

enumerated(enum, value) if value in enum

enumerated(enum, value) if {
	is_array(value)
	every element in value { element in enum }
}

# left_out: an argument that is not required may be null, or what its
# declaration names as the default, whatever type it declares.
left_out(v) if {
	optional(v.path)
	v.value == null
}

left_out(v) if {
	optional(v.path)
	v.value == v.schema.default
}

optional(path) if {
	last := count(path) - 1
	is_string(path[last])
	parent := object.get(declaration, schema_path(array.slice(path, 0, last)), null)
	not path[last] in object.get(parent, "required", [])
}

# ---------------------------------------------------------------- limits

limits := data.params.limits

faults contains fault("amount_over_limit", pointer(v.path), concat("", ["is beyond the limit of ", format_int(limit, 10)])) if {
	some v in values
	limit := limits.amounts[v.name]
	abs(number(v.value)) > limit
}

faults contains fault("path_climbs", pointer(v.path), "must not climb with ..") if {
	some v in values
	is_string(v.value)
	v.name in limits.paths.arguments
	".." in split(plain(v.value), "/")
}

faults contains fault("path_not_allowed", pointer(v.path), "is under none of the allowed paths") if {
	some v in values
	is_string(v.value)
	v.name in limits.paths.arguments
	not allowed_path(plain(v.value))
}

faults contains fault("host_not_allowed", pointer(v.path), "is none of the allowed hosts") if {
	some v in values
	is_string(v.value)
	some authority in authorities(v)
	not allowed_host(host(authority))
}

number(value) := value if is_number(value)

number(value) := to_number(value) if is_string(value)

# plain undoes what some tools undo before they open a path.
plain(path) := strings.replace_n({"\\": "/", "%2e": ".", "%2E": ".", "%2f": "/", "%2F": "/", "%5c": "/", "%5C": "/"}, path)

allowed_path(path) if path in limits.paths.prefixes

allowed_path(path) if {
	some prefix in limits.paths.prefixes
	startswith(path, concat("", [trim_right(prefix, "/"), "/"]))
}

# authorities: what stands where a host stands - after every "://" in any text,
# and at the beginning of an argument that is named as one.
authorities(v) := [authority(rest) | some rest in array.slice(parts, 1, count(parts))] if {
	contains(location(v), "://")
	parts := split(location(v), "://")
} else := [authority(trim_left(location(v), "/"))] if {
	names_host(v)
}

# location: in an argument that names a host, a backslash is a slash, as browsers have it.
location(v) := replace(v.value, "\\", "/") if names_host(v) else := v.value

names_host(v) if v.name in limits.hosts.arguments

authority(rest) := lower(split(split(split(replace(rest, "\\", "/"), "/")[0], "?")[0], "#")[0])

# host: without its port. What has a user name is left whole and so never allowed by name.
host(authority) := authority if contains(authority, "@") else := split(authority, ":")[0]

allowed_host(name) if name in limits.hosts.allow

allowed_host(name) if {
	some pattern in limits.hosts.allow
	startswith(pattern, "*.")
	endswith(name, trim_prefix(pattern, "*"))
}

# --------------------------------------------------------------- reasons

fault(code, at, text) := {"code": code, "text": concat(": ", [at, text])}

# pointer: RFC 6901, from the request's root.
pointer(path) := concat("/", array.concat(["/context/arguments"], [token(key) | some key in path]))

token(key) := replace(replace(key, "~", "~0"), "/", "~1") if is_string(key)

token(key) := format_int(key, 10) if is_number(key)
