// Command control-plane is real Kubernetes in one executable: etcd, kubectl and
// the upstream servers of a control plane and of a node, built from their Go
// modules because prebuilt binaries cannot be assumed on a build machine.
//
// The lab starts it once per role, busybox style: the first argument, or the
// name it is called by, selects the program.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	// Registers the client-go metrics and log formats the servers' flags name.
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
)

// Each program by the name it is called by. A command is made only when it is
// wanted, since making one registers flags and metrics of the whole process.
var programs = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
	// It waits for signals itself.
	"kubelet": func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	role := filepath.Base(os.Args[0])
	args := os.Args[1:]
	if !known(role) && len(args) > 0 {
		role, args = args[0], args[1:]
	}
	os.Args = append([]string{role}, args...)
	switch {
	case role == "etcd":
		etcdmain.Main(os.Args)
	case known(role):
		os.Exit(cli.Run(programs[role]()))
	default:
		fmt.Fprintf(os.Stderr, "usage: control-plane %s [flags]\n", strings.Join(roles(), "|"))
		os.Exit(2)
	}
}

func known(role string) bool {
	return slices.Contains(roles(), role)
}

func roles() []string {
	names := []string{"etcd"}
	for name := range programs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
