package control

import "runtime/debug"

// VersionInfo says which build a binary is.
type VersionInfo struct {
	Version  string `json:"version"`            // of the module: "v1.2.3", "(devel)"
	Revision string `json:"revision,omitempty"` // of the source it was built from
	Time     string `json:"time,omitempty"`     // of that revision
	Modified bool   `json:"modified,omitempty"` // built from a changed working copy
	Go       string `json:"go"`
}

// BuildVersion tells which build the running binary is, from what the Go tool
// put into it.
func BuildVersion() VersionInfo {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return VersionInfo{Version: "unknown"}
	}
	v := VersionInfo{Version: info.Main.Version, Go: info.GoVersion}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
