// Command control-plane is a real Kubernetes control plane in one executable:
// the upstream kube-apiserver, etcd and kubectl, built from their Go modules
// because prebuilt binaries cannot be assumed on a build machine.
//
// The lab starts it once per role, busybox style: the first argument, or the
// name it is called by, selects the program.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"

	// Registers the client-go metrics and log formats the servers' flags name.
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
)

func main() {
	role := filepath.Base(os.Args[0])
	args := os.Args[1:]
	if !known(role) && len(args) > 0 {
		role, args = args[0], args[1:]
	}
	os.Args = append([]string{role}, args...)
	switch role {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		run(apiserver.NewAPIServerCommand())
	case "kubectl":
		run(kubectl.NewDefaultKubectlCommand())
	default:
		fmt.Fprintln(os.Stderr, "usage: control-plane etcd|kube-apiserver|kubectl [flags]")
		os.Exit(2)
	}
}

func known(role string) bool {
	return role == "etcd" || role == "kube-apiserver" || role == "kubectl"
}

func run(command *cobra.Command) {
	os.Exit(cli.Run(command))
}
