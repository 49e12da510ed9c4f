// The QR picture of a key URI, as SVG: no image URL, nothing stored, nothing sent elsewhere.

/** An SVG with four white modules around the code. The library is loaded on first use. */
export async function qrSvg (uri: string): Promise<string> {
  const { default: { toString } } = await import('qrcode')
  return await toString(uri, { type: 'svg', errorCorrectionLevel: 'M', margin: 4 })
}
