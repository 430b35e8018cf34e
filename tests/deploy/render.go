// Renders a Helm chart with the template engine and the functions that Helm
// itself uses (Go's text/template and sprig, from Debian's packages), where
// Helm cannot be installed. For scripts/render-chart; no module, GOPATH mode.
//
//	render CHART RELEASE NAMESPACE [--lookup FILE] [VALUES.yaml]...
//
// --lookup FILE is a list of objects that lookup finds, as in an upgrade.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"github.com/ghodss/yaml"
)

type object = map[string]interface{}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func load(path string) object {
	text, err := os.ReadFile(path)
	check(err)
	v := object{}
	check(yaml.Unmarshal(text, &v))
	return v
}

// As Helm does it: maps are merged, anything else is replaced, null removes.
func merge(to, from object) {
	for key, value := range from {
		a, aok := to[key].(object)
		b, bok := value.(object)
		switch {
		case value == nil:
			delete(to, key)
		case aok && bok:
			merge(a, b)
		default:
			to[key] = value
		}
	}
}

func field(o object, keys ...string) interface{} {
	var v interface{} = o
	for _, key := range keys {
		m, ok := v.(object)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func toYaml(v interface{}) (string, error) {
	text, err := yaml.Marshal(v)
	return strings.TrimSuffix(string(text), "\n"), err
}

func main() {
	args := os.Args[1:]
	if len(args) < 3 {
		check(fmt.Errorf("CHART RELEASE NAMESPACE [VALUES.yaml]..."))
	}
	chart, release, namespace := args[0], args[1], args[2]
	values := load(filepath.Join(chart, "values.yaml"))
	var there []object
	for i := 3; i < len(args); i++ {
		if args[i] == "--lookup" {
			i++
			text, err := os.ReadFile(args[i])
			check(err)
			check(json.Unmarshal(text, &there))
			continue
		}
		merge(values, load(args[i]))
	}

	top := template.New("chart").Option("missingkey=zero")
	functions := sprig.TxtFuncMap()
	delete(functions, "env")
	delete(functions, "expandenv")
	functions["toYaml"] = toYaml
	functions["include"] = func(name string, data interface{}) (string, error) {
		var out bytes.Buffer
		err := top.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	functions["required"] = func(why string, v interface{}) (interface{}, error) {
		if v == nil || v == "" {
			return nil, fmt.Errorf("%s", why)
		}
		return v, nil
	}
	functions["lookup"] = func(api, kind, ns, name string) object {
		for _, o := range there {
			if o["apiVersion"] == api && o["kind"] == kind &&
				field(o, "metadata", "namespace") == ns &&
				field(o, "metadata", "name") == name {
				return o
			}
		}
		return object{}
	}
	top.Funcs(functions)

	files, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	check(err)
	sort.Strings(files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(err)
		_, err = top.New(filepath.Base(file)).Parse(string(text))
		check(err)
	}
	meta := load(filepath.Join(chart, "Chart.yaml"))
	data := object{
		"Values": values,
		"Chart": object{"Name": meta["name"], "Version": meta["version"],
			"AppVersion": meta["appVersion"]},
		"Release": object{"Name": release, "Namespace": namespace,
			"Service": "Helm", "IsInstall": len(there) == 0,
			"IsUpgrade": len(there) > 0},
	}
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasPrefix(name, "_") {
			continue
		}
		var out bytes.Buffer
		check(top.ExecuteTemplate(&out, name, data))
		text := strings.TrimSpace(strings.ReplaceAll(out.String(),
			"<no value>", ""))
		if name == "NOTES.txt" {
			if os.Getenv("NOTES") != "" {
				fmt.Println(text)
			}
			continue
		}
		if text != "" && os.Getenv("NOTES") == "" {
			fmt.Printf("---\n# Source: %s/templates/%s\n%s\n",
				meta["name"], name, text)
		}
	}
}
