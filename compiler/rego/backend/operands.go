package backend

import (
	"reflect"

	"github.com/open-policy-agent/opa/v1/ir"
)

// plain makes values of the pointers that decoding a plan leaves in operands.
func plain(p *ir.Policy) {
	normalise := func(s ir.Stmt) {
		fields := reflect.ValueOf(s).Elem()
		for i := range fields.NumField() {
			switch f := fields.Field(i).Addr().Interface().(type) {
			case *ir.Operand:
				f.Value = value(f.Value)
			case *[]ir.Operand:
				for i := range *f {
					(*f)[i].Value = value((*f)[i].Value)
				}
			}
		}
	}
	for _, f := range p.Funcs.Funcs {
		walkBlocks(f.Blocks, normalise)
	}
	for _, plan := range p.Plans.Plans {
		walkBlocks(plan.Blocks, normalise)
	}
}

func value(v ir.Val) ir.Val {
	switch v := v.(type) {
	case *ir.Local:
		return *v
	case *ir.StringIndex:
		return *v
	case *ir.Bool:
		return *v
	}
	return v
}
