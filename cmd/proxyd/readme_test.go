package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// readme gives the fenced blocks of README.md of one kind.
func readme(t *testing.T, kind string) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for i, part := range strings.Split(string(text), "```") {
		if body, ok := strings.CutPrefix(part, kind+"\n"); ok && i%2 == 1 {
			blocks = append(blocks, body)
		}
	}
	return blocks
}

// The commands of the README are run, in order and as they stand, by a shell on
// a host of its own: namespaces with an empty /run and a loopback of their own,
// where port 8080 is free. What starts in the background is given the time to
// answer that a person's typing takes.
func TestEveryCommandOfTheREADME(t *testing.T) {
	need(t, "python3")
	need(t, "curl")
	need(t, "unshare")
	var script strings.Builder
	script.WriteString(`set -eu
mount -t tmpfs none /run; mount -t tmpfs none /var/lib
ip link set lo up
cd "$1"
answers() { for _ in $(seq 3000); do proxyctl -s web status -o json 2>/dev/null | grep -q '"state":"serving"' && return; sleep 0.01; done; return 1; }
`)
	commands := 0
	for _, block := range readme(t, "console") {
		if strings.Contains(block, "go install") {
			continue // the test's own build is in PATH; cmd/demo and the tests show that both build
		}
		for line := range strings.Lines(block) {
			command, ok := strings.CutPrefix(line, "$ ")
			if !ok {
				continue
			}
			commands++
			command = strings.TrimSpace(command)
			if name, found := strings.CutPrefix(command, "proxyd --config"); found && strings.HasSuffix(name, "&") {
				// The README's second service has the first one's name.
				script.WriteString("kill %1; wait %1\n")
			}
			fmt.Fprintf(&script, "echo '+' %s\n%s\n", quote(command), command)
			if strings.HasSuffix(command, "&") {
				script.WriteString("answers\n")
			}
		}
	}
	script.WriteString("kill $(jobs -p); wait\n")
	if commands < 15 {
		t.Fatalf("only %d commands were found", commands)
	}
	dir := shortTempDir(t)
	for _, block := range readme(t, "toml") {
		name, _, _ := strings.Cut(strings.TrimPrefix(block, "# "), "\n")
		if strings.Contains(name, "/") {
			continue // of the steps under systemd, which systemd/trial takes
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
		"bash", "-c", script.String(), "bash", dir)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// The two commands that a newcomer types first are the ones that CI runs.
func TestTheREADMENamesItsTwoCommands(t *testing.T) {
	blocks := readme(t, "sh")
	if len(blocks) != 1 || blocks[0] != "go run ./cmd/demo\ngo test ./...\n" {
		t.Fatalf("the README's commands are %q", blocks)
	}
	ci, err := os.ReadFile("../../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(ci), "go run ./cmd/demo") || !strings.Contains(string(ci), "README.md") {
		t.Fatal("CI does not run them")
	}
}
