package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// checkPrograms looks whether what a generation of release is started with is
// there: its program, its working directory, the program of its readiness check.
// What names an address, or the generation, cannot be known yet.
func (c *checking) checkPrograms(release string) error {
	values := map[string]string{"release": release}
	b := c.config.Backend
	if b.Driver == "exec" {
		dir, known := expandOne(b.Dir, values)
		if known && dir != "" {
			c.checkWorkingDir(dir)
		}
		if program, ok := expandOne(b.Command[0], values); ok && (known || !isRelative(program)) {
			c.checkProgram("backend.command[0]", program, dir, b.Env["PATH"])
		}
	}
	if c.config.Ready.Check == "command" {
		if program, ok := expandOne(c.config.Ready.Command[0], values); ok {
			c.checkProgram("ready.command[0]", program, "", b.Env["PATH"])
		}
	}
	return c.config.takeProblems()
}

func expandOne(text string, values map[string]string) (string, bool) {
	expanded, err := Expand([]string{text}, values)
	if err != nil {
		return "", false
	}
	return expanded[0], true
}

// isRelative: a name without a slash is looked for in PATH.
func isRelative(program string) bool {
	return strings.Contains(program, "/") && !filepath.IsAbs(program)
}

func (c *checking) checkWorkingDir(dir string) {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s: not a directory", dir)
	}
	if err != nil {
		c.config.wrong("backend.dir", err.Error(), "")
	}
}

// checkProgram looks for a program as its start would: from dir, and in path,
// else in proxyd's own PATH.
func (c *checking) checkProgram(key, program, dir, path string) {
	var err error
	if path != "" && !strings.Contains(program, "/") {
		err = fmt.Errorf("%q is not in the PATH of backend.env", program)
		for _, in := range filepath.SplitList(path) {
			if _, failed := exec.LookPath(filepath.Join(dir, in, program)); failed == nil {
				err = nil
			}
		}
	} else {
		if isRelative(program) {
			program = filepath.Join(dir, program)
			if dir == "" {
				program = "./" + program
			}
		}
		_, err = exec.LookPath(program)
	}
	if err != nil && !errors.Is(err, exec.ErrDot) {
		c.config.wrong(key, err.Error(), "")
	}
}
