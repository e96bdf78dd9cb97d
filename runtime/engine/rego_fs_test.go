package engine_test

import (
	"io/fs"
	"testing/fstest"
)

func regoFS(source string) fs.FS {
	return fstest.MapFS{"policy.rego": {Data: []byte(source)}}
}
