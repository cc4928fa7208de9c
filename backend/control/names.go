package control

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxName    = 64
	maxRelease = 128
)

// CheckName refuses what is not the name of a service or a listener: a letter or
// a digit, and then up to 63 letters, digits, dots, underscores and hyphens.
func CheckName(name string) error {
	if name == "" {
		return errors.New("a name is empty")
	}
	if len(name) > maxName {
		return fmt.Errorf("name %q has %d bytes, at most %d are allowed", name[:maxName]+"...", len(name), maxName)
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		case i == 0:
			return fmt.Errorf("name %q does not begin with a letter or a digit", name)
		default:
			return fmt.Errorf("name %q: byte %d is not a letter, a digit, \".\", \"_\" or \"-\"", name, i+1)
		}
	}
	return nil
}

// CheckRelease refuses what is not the label of a release: 1 to 128 bytes of
// printable UTF-8 that can stand in a path as one element and in a command line
// without being taken for an option. A space at an end, which nobody sees, would
// make two of one release.
func CheckRelease(label string) error {
	switch {
	case label == "":
		return errors.New("a release label is empty")
	case len(label) > maxRelease:
		return fmt.Errorf("a release label of %d bytes, at most %d are allowed", len(label), maxRelease)
	case !utf8.ValidString(label):
		return fmt.Errorf("release label %q is not UTF-8", label)
	case label == ".", label == "..":
		return fmt.Errorf("release label %q means a directory where it is used in a path", label)
	case label[0] == '-':
		return fmt.Errorf("release label %q would be an option in a command line", label)
	case strings.Trim(label, " ") != label:
		return fmt.Errorf("release label %q begins or ends with a space", label)
	}
	if i := strings.IndexByte(label, '/'); i >= 0 {
		return fmt.Errorf("release label %q: byte %d is a slash", label, i+1)
	}
	for i, r := range label {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("release label %q: byte %d is not printable (%U)", label, i+1, r)
		}
	}
	return nil
}
