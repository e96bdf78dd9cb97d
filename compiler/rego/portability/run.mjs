// Runs the module of each package unchanged in the npm package
// @open-policy-agent/opa-wasm, and wants the answers of `holdfast eval`.
//
//	node run.mjs HOLDFAST ROOT
import {spawnSync} from 'node:child_process'
import {existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs'
import {createRequire} from 'node:module'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {isDeepStrictEqual} from 'node:util'

const require = createRequire(join(process.cwd(), 'node_modules', 'x.js'))
const {loadPolicy} = require('@open-policy-agent/opa-wasm')
const YAML = require('yaml')

const [holdfast, root] = process.argv.slice(2)
const work = mkdtempSync(join(tmpdir(), 'portability-'))

function run(...args) {
	const r = spawnSync(holdfast, args, {encoding: 'utf8'})
	if (r.status !== 0) throw new Error(`holdfast ${args.join(' ')}: exit ${r.status}: ${r.stderr}`)
	return r.stdout
}

const readYAML = (file) => (existsSync(file) ? YAML.parse(readFileSync(file, 'utf8')) : null)
const readJSON = (file) => (existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {})

// The requests of a folder's vectors, as a Rego policy sees them.
function vectorInputs(dir, point) {
	return readYAML(join(dir, 'vectors.yaml')).map((v) => v.request.document ?? {point: v.point ?? point, ...v.request})
}

// The inputs of OPA's own transcript, with their paths.
function transcript(file) {
	return readJSON(file)
		.filter((x) => x.method === 'POST' && x.status === 200 && x.body?.startsWith('{"input": {') && x.body.endsWith('}'))
		.map((x) => [x.url.replace(/^\/v1\/data\//, '').replace(/\?.*/, ''), JSON.parse(x.body).input])
}

// Lists in an order of their own: Wasm writes a set as a list, opa-wasm leaves it
// in the order of its hash table, and Holdfast sorts it.
function unordered(v) {
	if (Array.isArray(v)) return v.map(unordered).sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1))
	if (v && typeof v === 'object') return Object.fromEntries(Object.entries(v).map(([k, w]) => [k, unordered(w)]))
	return v
}

async function check(name, dir, data, questions) {
	const pkg = join(work, 'p.hfp')
	const wasm = join(work, 'p.wasm')
	run('build', dir, '-o', pkg)
	run('inspect', pkg, '--extract-wasm', wasm)
	const policy = await loadPolicy(readFileSync(wasm))
	policy.setData({...data, params: readYAML(join(dir, 'holdfast.yaml'))?.params ?? {}})
	let asked = 0
	for (const [path, input] of questions) {
		if (!(path in policy.entrypoints)) continue // below an entry point: opa-wasm has no such answer
		const file = join(work, 'input.json')
		writeFileSync(file, JSON.stringify(input))
		const ours = run('eval', pkg, '--raw', '--entrypoint', path, '-i', file).trim()
		const theirs = policy.evaluate(input, path)
		const want = theirs.length === 0 ? undefined : theirs[0].result
		const got = ours === 'undefined' ? undefined : JSON.parse(ours)
		if (!isDeepStrictEqual(got, want) && !isDeepStrictEqual(unordered(got), unordered(want))) {
			throw new Error(`${name}: ${path} of ${JSON.stringify(input)}:\n  holdfast ${JSON.stringify(got)}\n  opa-wasm ${JSON.stringify(want)}`)
		}
		asked++
	}
	if (asked === 0) throw new Error(`${name}: nothing was asked`)
	console.log(`${name}: ${asked} answers are the same`)
}

try {
	const at = (...parts) => join(root, ...parts)
	const authz = at('modules', 'tool-authz')
	await check('tool-authz', authz, {}, vectorInputs(authz, 'tool.pre_call').map((i) => ['tool_authz/decision', i]))
	const starter = at('cmd', 'holdfast', 'starter', 'rego')
	await check('starter', starter, {tools: readJSON(join(starter, 'tools', 'data.json'))},
		vectorInputs(starter, 'tool.pre_call').map((i) => ['tools/decision', i]))
	const shop = at('internal', 'assembly', 'testdata', 'opa')
	await check('transcript', join(shop, 'policy'), {shop: readJSON(join(shop, 'policy', 'shop', 'data.json'))},
		transcript(join(shop, 'transcript.json')))
	const rbac = at('bench', 'testdata', 'rbac')
	await check('rbac', rbac, readJSON(join(rbac, 'data.json')),
		['user0', 'user99', 'nobody'].map((user) => ['rbac/allow', {user, action: 'read', type: 'type0'}]))
} catch (err) {
	console.error(`portability: ${err.message}`)
	process.exitCode = 1
} finally {
	rmSync(work, {recursive: true})
}
