// Reads an exported log with the Go checksum database's own packages: what any outside client of such a log would do.
//
//	tlog FOLDER VKEY [OLD-SIZE OLD-ROOT-BASE64]
//
// Opens the signed note, proves every entry's inclusion from the hash tiles, and, if an older head is given, that the log
// only grew since. Prints the size; whatever does not hold is an error and exit code 1.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type folder string

func (d folder) Height() int { return 8 }

// Go's own paths carry the tile's height; those of tlog-tiles do not.
func (d folder) path(t tlog.Tile) string {
	parts := strings.SplitN(t.Path(), "/", 3)
	return filepath.Join(string(d), "tile", parts[2])
}

func (d folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, t := range tiles {
		data, err := os.ReadFile(d.path(t))
		if err != nil {
			full := t
			full.W = 256
			if data, err = os.ReadFile(d.path(full)); err != nil {
				return nil, err
			}
			data = data[:t.W*32]
		}
		out = append(out, data)
	}
	return out, nil
}

func (d folder) SaveTiles([]tlog.Tile, [][]byte) {}

// bundle returns the entries beside a tile of leaf hashes.
func (d folder) bundle(n int64, w int) ([][]byte, error) {
	path := d.path(tlog.Tile{H: 8, L: 0, N: n, W: w})
	path = strings.Replace(path, "/tile/0/", "/tile/entries/", 1)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(data) > 0 {
		size := int(binary.BigEndian.Uint16(data))
		entries = append(entries, data[2:2+size])
		data = data[2+size:]
	}
	return entries, nil
}

func fail(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func main() {
	dir := folder(os.Args[1])
	data, err := os.ReadFile(filepath.Join(os.Args[1], "checkpoint"))
	fail("checkpoint", err)
	verifier, err := note.NewVerifier(os.Args[2])
	fail("verifier key", err)
	opened, err := note.Open(data, note.VerifierList(verifier))
	fail("note", err)
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	fail("size", err)
	root, err := base64.StdEncoding.DecodeString(lines[2])
	fail("root", err)
	tree := tlog.Tree{N: size}
	copy(tree.Hash[:], root)
	reader := tlog.TileHashReader(tree, dir)
	for n := int64(0); n*256 < size; n++ {
		width := int(min(256, size-n*256))
		entries, err := dir.bundle(n, width)
		fail("bundle", err)
		if len(entries) != width {
			fail("bundle", fmt.Errorf("%d holds %d entries, not %d", n, len(entries), width))
		}
		for i, entry := range entries {
			at := n*256 + int64(i)
			proof, err := tlog.ProveRecord(size, at, reader)
			fail("inclusion", err)
			fail("inclusion", tlog.CheckRecord(proof, size, tree.Hash, at, tlog.RecordHash(entry)))
		}
	}
	if len(os.Args) > 3 {
		old, err := strconv.ParseInt(os.Args[3], 10, 64)
		fail("old size", err)
		hash, err := tlog.ParseHash(os.Args[4])
		fail("old root", err)
		proof, err := tlog.ProveTree(size, old, reader)
		fail("consistency", err)
		fail("consistency", tlog.CheckTree(proof, size, tree.Hash, old, hash))
	}
	fmt.Println(size)
}
