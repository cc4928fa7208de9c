// Package control is the control protocol of proxyd: HTTP and JSON on a unix
// socket. proxyd serves it, proxyctl speaks it, curl can too.
package control
