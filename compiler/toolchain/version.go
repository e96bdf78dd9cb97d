package toolchain

import "context"

// GoVersion returns the version of the go command that would build dir, or a
// *MissingError.
func GoVersion(ctx context.Context, dir string) (string, error) { return goVersion(ctx, dir) }

// CVersion returns the version of the C compiler that would build dir, or a
// *MissingError.
func CVersion(ctx context.Context, dir string) (string, error) {
	c, err := findC(ctx, dir)
	if err != nil {
		return "", err
	}
	return c.version, nil
}

// ZigVersion returns the version of the zig that would build dir, or a
// *MissingError.
func ZigVersion(ctx context.Context, dir string) (string, error) {
	_, version, err := findZig(ctx, dir)
	if err != nil {
		return "", err
	}
	return "zig " + version, nil
}
