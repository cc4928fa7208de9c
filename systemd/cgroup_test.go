package systemd

import "testing"

func TestUnitOfControlGroup(t *testing.T) {
	for _, c := range []struct {
		path string
		user bool
		unit string
	}{
		{"/system.slice/system-web.slice/web@3.service", false, "web@3.service"},
		{"/system.slice/web@3.service/workers/1", false, "web@3.service"},
		{`/system.slice/web@v1\x2drc.service`, false, `web@v1\x2drc.service`},
		{"/web@3.service", false, "web@3.service"},
		{"/init.scope", false, "init.scope"},
		{"/", false, ""},
		{"", false, ""},
		{"/..", false, ""},
		{"/../web@3.service", false, ""},
		{"/mine/web@3.service", false, ""}, // whoever made the group has chosen that name
		{"/_web@3.service", false, "web@3.service"},
		// A user's own unit of the same name is not the machine's, nor the other
		// way round, nor is what a unit calls its own groups.
		{"/user.slice/user-1000.slice/user@1000.service/app.slice/web@3.service", false, "user@1000.service"},
		{"/user.slice/user-1000.slice/user@1000.service/app.slice/web@3.service", true, "web@3.service"},
		{"/system.slice/web@3.service", true, ""},
		{"/system.slice/x.service/user@1000.service/web@3.service", true, ""},
		{"/system.slice/x.service/web@3.service", false, "x.service"},
	} {
		if got := unitOfGroup(c.path, c.user); got != c.unit {
			t.Errorf("%s (user: %v) is of %q, not %q", c.path, c.user, got, c.unit)
		}
	}
}
