/** Where views, words and style sheets lie: one folder up, from the sources as from the bundle. */
export const PACKAGE_FOLDER = new URL('../', import.meta.url)
