//go:build race

package main

// raceFlag builds the programs under test as the tests were.
var raceFlag = []string{"-race"}
