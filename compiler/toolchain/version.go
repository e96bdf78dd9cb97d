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

// RustVersion returns the version of the rustc that would build dir, or a
// *MissingError.
func RustVersion(ctx context.Context, dir string) (string, error) {
	r, err := findRust(ctx, dir)
	if err != nil {
		return "", err
	}
	return "rustc " + r.release, nil
}

// AssemblyScriptVersion returns the version of the asc that would build dir, or a
// *MissingError.
func AssemblyScriptVersion(ctx context.Context, dir string) (string, error) {
	_, version, err := findASC(ctx, dir)
	if err != nil {
		return "", err
	}
	return "asc " + version, nil
}
