//go:build !faults

package main

// faultAt does nothing outside of the tests' build (see fault_on.go).
func faultAt(string) {}
