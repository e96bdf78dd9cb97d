# Every argument of a tool call is declared and of its type, and none is missing.
package toolargs

# METADATA
# entrypoint: true
default allow := false

allow if {
	some tool in input.tools
	tool.name == input.call.name
	count(missing(tool.parameters)) == 0
	every name, value in input.call.arguments {
		fits(tool.parameters.properties[name], value)
	}
}

missing(parameters) := {name | some name in parameters.required; not input.call.arguments[name]}

fits(schema, value) if {
	schema.type == "string"
	is_string(value)
}

fits(schema, value) if {
	schema.type == "integer"
	is_number(value)
}

fits(schema, value) if {
	schema.type in {"float", "number"}
	is_number(value)
}

fits(schema, value) if {
	schema.type == "boolean"
	is_boolean(value)
}

fits(schema, value) if {
	schema.type in {"array", "tuple"}
	is_array(value)
}

fits(schema, value) if {
	schema.type in {"dict", "object"}
	is_object(value)
}

fits(schema, _) if schema.type == "any"
